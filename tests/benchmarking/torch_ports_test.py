"""PyTorch ports: the same functions of the same parameters as the systems they stand beside."""

import jax
import numpy as np
import pytest

from jaxrec_diff.benchmarking import asks, peers, subjects
from jaxrec_diff.benchmarking.asks import Ask
from jaxrec_diff.diffusion import process

torch = pytest.importorskip("torch")

TINY = asks.shapes_from("users:60,items:40,len:8")
RELEASED = ("--model.mask=query", "--model.positions=false", "--model.width=16")
SMALL = {
    "dreamrec": ("--model.num-steps=6", "--model.sampler.kind=ddpm"),
    "diffurec": RELEASED,
    "diffrec": (),
}


def made(name: str, question: str, flags: tuple[str, ...], preset: str = ""):
    ask = Ask(question, (name,), shapes=TINY, preset=preset, flags=flags, batches=(8,),
              devices=(1,))  # fmt: skip
    (case,) = asks.cases(ask, name)
    return subjects.make(case.name, case.experiment, case.source, case.dataset)


def port(subject, question: str, asked, compiled: bool = False):
    settings = subject.phase.settings.model
    given = jax.device_get((subject.train.params, asked))
    return peers.port(settings, question)(settings, subject.phase.spec, *given, compiled=compiled)


@pytest.mark.parametrize("name", ["dreamrec", "diffurec"])
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


def test_the_port_of_diffrec_has_the_same_scores():
    subject = made("diffrec", "sampler", SMALL["diffrec"])
    args = subjects.sampler(subject, 8).args
    points = jax.jit(subject.model.sample)(*args)
    head = subject.model.head(*args[:2])
    wanted = (points @ head.table.T + head.bias)[:, head.first : head.first + TINY[0].items]
    found = port(subject, "sampler", args[-1])()
    assert peers.difference(found, wanted) < 1e-4


@pytest.mark.parametrize("name", ["dreamrec", "diffurec", "diffrec"])
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
@pytest.mark.parametrize("name", ["dreamrec", "diffurec", "diffrec"])
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
