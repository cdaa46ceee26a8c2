"""Items that training never met, by their vectors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import phases, restore, runs, workdirs
from jaxrec_diff.inference import export, new_items, recommend, recommender
from jaxrec_diff.models.contract import Variables, begun
from jaxrec_diff.training import optim, state, step
from jaxrec_diff.training.config import TrainConfig

ITEMS, TWIN = 40, 7
_RNG = np.random.default_rng(0)
VECTORS = _RNG.normal(size=(ITEMS, 6)) @ _RNG.normal(size=(6, 6)) + 2.0
SMALL = [
    "--data.synthetic.num-users=60", "--data.synthetic.num-items=40", "--data.max-len=6",
    "--model.width=4", "--train.batch-size=32", "--devices=1",
]  # fmt: skip


def untrained(name, folder, *flags, arrays=True):
    """A model with initial parameters, and a folder as a run leaves it without its checkpoints."""
    np.save(folder / "vectors.npy", VECTORS.astype(np.float32))
    flags = [*SMALL, *flags]
    settings = config.parse(config.preset(name, "synthetic").experiment, flags)
    run = runs.prepare(name, settings, "synthetic", typed=())
    workdirs.create(run, folder / "run")
    (phase,) = run.phases
    model = phases.model_of(phase)
    if not arrays:
        return restore.Restored(phase, model, None, None)
    example = phase.batcher.example(
        phase.batcher.train, jnp.arange(2), jnp.arange(2), jax.random.key(0)
    )
    params, state = jax.jit(model.init)(jax.random.key(0), example)
    return restore.Restored(phase, model, begun(params, model.given), state)


def features(folder, *more):
    return f"--data.item-features={folder / 'vectors.npy'}", *more


def with_two_more(folder):
    """Vectors of all items, of one that is like TWIN, and of another."""
    path = folder / "more.npy"
    vectors = np.concatenate([VECTORS, VECTORS[TWIN : TWIN + 1], VECTORS[:1] - 50.0])
    np.save(path, vectors.astype(np.float32))
    return path


def test_a_run_starts_from_whitened_vectors_and_keeps_them(tmp_path):
    found = untrained("sasrec", tmp_path, *features(tmp_path), "--model.num-blocks=1")
    exact = VECTORS - VECTORS.mean(axis=0)
    variance, directions = np.linalg.eigh(exact.T @ exact / ITEMS)
    want = exact @ directions[:, ::-1][:, :4] / np.sqrt(variance[::-1][:4])
    rows = np.asarray(found.params["items"][1 : ITEMS + 1]) / 0.02  # SASRec's own deviation
    signs = np.sign(np.sum(rows * want, axis=0))  # of a direction either is right
    np.testing.assert_allclose(rows, want * signs, atol=1e-3)
    example = found.phase.batcher.example(
        found.phase.batcher.train, jnp.arange(32), jnp.arange(32), jax.random.key(0)
    )
    loss = functools.partial(found.model.loss, state=found.state, key=jax.random.key(1))
    grads = jax.jit(jax.grad(lambda params: loss(params, example=example)[0]))(found.params)
    np.testing.assert_array_equal(grads["items"], 0.0)
    optimizer = optim.make(
        TrainConfig(optimizer="adamw", weight_decay=0.1), 10, None, found.model.frozen
    )
    train = state.create(Variables(found.params, found.state), optimizer)
    train, metrics = jax.jit(functools.partial(step.update, found.model, optimizer))(
        train, jax.random.key(1), example
    )
    assert float(metrics["grad_norm"]) > 0
    np.testing.assert_array_equal(train.params["items"], found.params["items"])


@pytest.mark.parametrize("name", ["sasrec", "preferdiff"])
def test_a_new_item_is_ranked_by_its_vector(name, tmp_path):
    flags = [] if name == "preferdiff" else ["--model.num-blocks=1"]
    found = untrained(name, tmp_path, *features(tmp_path), *flags)
    more = new_items.extended(found, tmp_path / "run", with_two_more(tmp_path))
    before = recommender.of(found, k=ITEMS, include_seen=True)
    after = recommender.of(more, k=ITEMS + 2, include_seen=True)
    history, same = [3, TWIN, 12], [3, ITEMS, 12]  # id 40 is like id 7
    (one,) = recommend.recommend(before, histories=[history])
    lists = recommend.recommend(after, histories=[history, same])
    scores = [dict(zip(each.items, each.scores, strict=True)) for each in lists]
    assert not lists.unknown and set(scores[0]) == set(range(ITEMS + 2))
    np.testing.assert_allclose(scores[0][ITEMS], scores[0][TWIN], rtol=1e-5)
    old = dict(zip(one.items, one.scores, strict=True))
    np.testing.assert_allclose([scores[0][i] for i in old], list(old.values()), rtol=1e-4)
    for item, score in scores[0].items():  # a history with the twin is the same history
        np.testing.assert_allclose(scores[1][item], score, rtol=1e-4, atol=1e-6)


def test_an_exported_program_knows_new_items(tmp_path):
    found = untrained("sasrec", tmp_path, *features(tmp_path), "--model.num-blocks=1")
    more = new_items.extended(found, tmp_path / "run", with_two_more(tmp_path))
    serve, weights, _ = export.program(more, k=5, include_seen=True)
    assert weights["candidates"].all() and len(weights["candidates"]) == ITEMS + 2
    history = np.array([[3, ITEMS + 1, 0]], np.int32)  # numbers, which are ids + 1
    items, _ = jax.jit(serve)(weights, history, np.zeros(1, np.int32), np.int32(0))
    asked = recommender.of(more, k=5, include_seen=True)
    (wanted,) = recommend.recommend(asked, histories=[[2, ITEMS]])
    assert (np.asarray(items[0]) - 1).tolist() == wanted.items


@pytest.mark.parametrize(
    ("name", "flags", "match"),
    [
        ("mf", None, "mf learns an item from its users, and knows no new one; train sasrec"),
        ("sasrec", None, "was trained without vectors of items"),
        ("sasrec", ["--data.item-features-use=initial"], "use=frozen$"),
        ("bert4rec", ["--model.num-heads=2"], "bert4rec learns more of an item than its row"),
    ],
)
def test_other_models_refuse_new_items(name, flags, match, tmp_path):
    given = [] if flags is None else [*features(tmp_path), *flags]
    found = untrained(name, tmp_path, *given, arrays=False)
    with pytest.raises(ValueError, match=match):
        new_items.extended(found, tmp_path / "run", with_two_more(tmp_path))


def test_other_vectors_are_refused(tmp_path):
    found = untrained("sasrec", tmp_path, *features(tmp_path), arrays=False)
    np.save(tmp_path / "wide.npy", np.ones((ITEMS + 1, 9), np.float32))
    with pytest.raises(ValueError, match="of 9 numbers, and the model was trained on some of 6"):
        new_items.extended(found, tmp_path / "run", tmp_path / "wide.npy")
    with pytest.raises(ValueError, match="nothing new in it"):
        new_items.extended(found, tmp_path / "run", tmp_path / "vectors.npy")
