"""PyTorch ports: the same functions of the same parameters as the systems they stand beside."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.sparse

from jaxrec_diff.benchmarking import asks, peers, subjects
from jaxrec_diff.benchmarking.asks import Ask
from jaxrec_diff.diffusion import process
from jaxrec_diff.models import ddrm, dimerec
from jaxrec_diff.ops import graph

torch = pytest.importorskip("torch")

TINY = asks.shapes_from("users:60,items:40,len:8")
RELEASED = ("--model.mask=query", "--model.positions=false", "--model.width=16")
SMALL = {
    "dreamrec": ("--model.num-steps=6", "--model.sampler.kind=ddpm"),
    "diffurec": RELEASED,
    "diffrec": (),
    "dimerec": (
        "--model.forward=grw",
        "--model.num-steps=6",
        "--model.positions=start",
        "--model.negatives=uniform",
        "--model.num-negatives=32",
    ),
    "ddrm": ("--model.dims=8,24", "--model.num-steps=6", "--model.extra-steps=2"),
}


def sibling(name: str):
    """A module of benchmarks/."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


def made(name: str, question: str, flags: tuple[str, ...], preset: str = ""):
    ask = Ask(question, (name,), shapes=TINY, preset=preset, flags=flags, batches=(8,),
              devices=(1,))  # fmt: skip
    (case,) = asks.cases(ask, name)
    return subjects.make(case.name, case.experiment, case.source, case.dataset)


def port(subject, question: str, asked, compiled: bool = False):
    settings = subject.phase.settings.model
    given = jax.device_get((subject.train.params, asked))
    return peers.port(settings, question)(settings, subject.phase.spec, *given, compiled=compiled)


@pytest.mark.parametrize("name", ["dreamrec", "diffurec", "dimerec"])
def test_a_port_walks_the_same_means(name, monkeypatch):
    """From the origin, where nothing is drawn; DiffuRec's lambda is then its mean."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(torch, "randn", lambda *size: torch.zeros(size))
    subject = made(name, "sampler", SMALL[name])
    args = subjects.sampler(subject, 8).args

    def ends(*args):
        chain = subjects.chain_of(subject)(*args)
        return process.run(chain._replace(start=chain.start * 0, draw=None))

    found = port(subject, "sampler", args[-1])()
    assert peers.difference(found, jax.jit(ends)(*args)) < 1e-4


def test_the_port_of_dimerec_starts_on_the_same_sphere(monkeypatch):
    """x_t of given noise is that of the geodesic walk, whichever step."""
    subject = made("dimerec", "train", SMALL["dimerec"])
    torch_dimerec, parts = sibling("torch_dimerec"), subject.phase.settings.model
    model = torch_dimerec.DimeRec(TINY[0].items, TINY[0].length, parts)
    rng = np.random.default_rng(0)
    x0, z = (rng.normal(size=(6, parts.width)).astype(np.float32) for _ in range(2))
    x0 /= np.linalg.norm(x0, axis=1, keepdims=True)
    monkeypatch.setattr(torch, "randn_like", lambda like: torch.from_numpy(z))
    t = np.arange(6)
    found = torch_dimerec.q_sample(model, torch.from_numpy(x0), torch.from_numpy(t))
    add_noise = dimerec.parts(parts, subject.phase.spec).add_noise
    np.testing.assert_allclose(found, add_noise(x0, t, z), atol=1e-6)


def test_the_port_of_diffrec_has_the_same_scores():
    subject = made("diffrec", "sampler", SMALL["diffrec"])
    args = subjects.sampler(subject, 8).args
    points = jax.jit(subject.model.sample)(*args)
    head = subject.model.head(*args[:2])
    wanted = (points @ head.table.T + head.bias)[:, head.first : head.first + TINY[0].items]
    found = port(subject, "sampler", args[-1])()
    assert peers.difference(found, wanted) < 1e-4


def test_the_port_of_ddrm_walks_the_same_means():
    """Also in the released program's way, whose vectors are walked along the graph anew."""
    subject = made("ddrm", "sampler", (*SMALL["ddrm"], "--model.start-noise=false"))
    args = subjects.sampler(subject, 8).args
    points = np.asarray(jax.jit(subject.model.sample)(*args))
    assert peers.difference(port(subject, "sampler", args[-1])(), points) < 1e-4


@pytest.mark.parametrize("layers", [0, 2])
def test_the_released_way_of_ddrm_makes_the_same_lists(layers):
    torch_ddrm = sibling("torch_ddrm")
    flags = (*SMALL["ddrm"], f"--model.layers={layers}", "--model.start-noise=false")
    subject = made("ddrm", "sampler", flags)
    config, spec = subject.phase.settings.model, subject.phase.spec
    vectors = ddrm.vectors(config, spec)
    model = torch_ddrm.DDRM(vectors.items.shape[1], config)
    torch_ddrm.load(model, jax.device_get(subject.train.params))
    sets = graph.item_sets(spec.user_items, spec.num_items)
    row = np.repeat(np.arange(spec.num_users), np.diff(sets.start))
    users, items = (torch.tensor(spec.exports[f"ego_{side}"]) for side in ("users", "items"))
    frozen = torch_ddrm.Frozen(
        users, items, torch_ddrm.adjacency(sets, spec.num_items), layers,
        np.split(sets.members, sets.start[1:-1]),
    )  # fmt: skip
    shape = spec.num_users, spec.num_items
    seen = scipy.sparse.csr_matrix((np.ones(len(row)), (row, sets.members)), shape)
    plain = torch_ddrm.recommend(model, tuple(map(torch.tensor, vectors)), seen, 5, 16)
    assert plain == torch_ddrm.as_released(model, frozen, seen, 5, 16)
    assert not any(seen[user, item] for user, listed in enumerate(plain) for item in listed)


@pytest.mark.parametrize("name", ["dreamrec", "diffurec", "diffrec", "ddrm", "dimerec"])
def test_a_port_learns(name):
    """The loss of the same examples falls over updates."""
    subject = made(name, "train", SMALL[name])
    step = port(subject, "train", _example(subject))
    losses = [step() for _ in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_a_port_refuses_other_settings():
    subject = made("diffurec", "train", ("--model.width=16",))
    with pytest.raises(ValueError, match="--model.mask=query"):
        port(subject, "train", _example(subject))
    subject = made("diqdiff", "train", ("--model.width=16",))
    with pytest.raises(ValueError, match="--preset=amazon-beauty"):
        port(subject, "train", _example(subject))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dreamrec", "diffurec", "diffrec", "ddrm", "dimerec"])
def test_a_compiled_port_walks_the_same_path(name, monkeypatch):
    subject = made(name, "sampler", SMALL[name])
    query = subjects.sampler(subject, 8).args[-1]
    found = []
    for compiled in (False, True):
        torch.manual_seed(0)
        found.append(port(subject, "sampler", query, compiled)())
    assert peers.difference(*found) < 1e-3


def _example(subject):
    _, data, key, order, _, _ = subjects.updates(subject, 1).args
    row = np.arange(order.shape[1], dtype=np.int32)
    return jax.jit(subject.phase.batcher.example)(data, order[0], row, key)
