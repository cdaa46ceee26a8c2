"""SASRec against numbers computed in float64 without it, and what must hold of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import registry, sasrec
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.ops import filled
from jaxrec_diff.ops import negatives as ops_negatives
from tests.models.compiled import compiled
from tests.models.tables import filling
from tests.nets.transformer_test import TestSasrecBlocks as Golden

SPEC = DataSpec(num_users=2, num_items=6, max_len=5)
# The golden sequences, [0, 0, 3, 1, 5] and [0, 2, 4, 6, 1] where padding comes first.
SEQ = jnp.array([[3, 1, 5, 0, 0], [2, 4, 6, 1, 0]])


def config(**changes):
    return SASRecConfig(**({"width": 4, "dropout_rate": 0.0} | changes))


def weights():
    """Tables of the golden encoder; its position 0 is that of padding, which is never read."""
    r, c = np.arange(12)[:, None], np.arange(4)[None, :]
    table = jnp.asarray(0.5 * np.sin(1 + r + 2 * c), jnp.float32)
    return {
        "items": filled.padded(table[:7]),
        "positions": table[1:6],
        "transformer": Golden().params(),
    }


def model_of(**changes):
    return compiled(sasrec.build(config(**changes), SPEC))


@pytest.mark.parametrize("width", [4, 5])
def test_golden_scores(width):
    model = model_of(mask="none")
    query = SequenceQuery(SEQ[:, :width], jnp.arange(2))
    points = model.sample(weights(), (), jax.random.key(0), query)
    np.testing.assert_allclose(
        points,
        [
            [-1.038348384829, 1.713871739607, 0.159365674846, -0.678600423292],
            [1.051091172652, -1.582617134348, -0.171499208117, 0.73889894326],
        ],
        atol=5e-6,
    )
    scores = points[0] @ rank.item_rows(model.head(weights(), ())).T
    np.testing.assert_allclose(
        scores,
        [-1.478569044012, -0.982483806533, 0.416892511717, 1.432979777292, 1.13159204415,
         -0.210176195779],
        atol=1e-5,
    )  # fmt: skip


def test_the_key_mask_makes_leading_padding_vanish():
    hidden, shown = model_of(), model_of(mask="none")
    points = [
        [m.sample(weights(), (), None, SequenceQuery(SEQ[:, :w], jnp.arange(2))) for w in (4, 5)]
        for m in (hidden, shown)
    ]
    np.testing.assert_allclose(points[0][0], points[0][1], atol=1e-6)
    np.testing.assert_allclose(points[1][0], points[1][1], atol=1e-6)
    assert np.abs(points[0][0] - points[1][0]).max() > 1e-4


def test_every_place_is_trained_as_if_it_were_the_last():
    # A window's loss is the mean of those of its prefixes, each scored by `sample`.
    model = model_of(loss="full")
    target = jnp.array([2, 5])
    example = Sequences(SEQ, target, jnp.ones(2), jnp.arange(2))
    got, _ = model.loss(weights(), (), jax.random.key(0), example)
    rows, table = [[3, 1, 5, 2], [2, 4, 6, 1, 5]], np.asarray(weights()["items"][1:7], np.float64)
    each = []
    for items in rows:
        for n in range(1, len(items)):
            prefix = jnp.array([items[:n] + [0] * (5 - n)])
            point = model.sample(weights(), (), None, SequenceQuery(prefix, jnp.arange(1)))[0]
            logits = table @ np.asarray(point, np.float64)
            each.append(np.log(np.exp(logits).sum()) - logits[items[n] - 1])
    np.testing.assert_allclose(got, np.mean(each), rtol=1e-5)
    cut, _ = model.loss(
        weights(), (), jax.random.key(0), example._replace(seq=(SEQ[:1, :3], SEQ[1:]))
    )
    np.testing.assert_allclose(cut, got, rtol=1e-5)
    padded, _ = model.loss(
        weights(), (), jax.random.key(0), example._replace(weight=jnp.array([1.0, 0.0]))
    )
    np.testing.assert_allclose(padded, np.mean(each[:3]), rtol=1e-5)


def test_bce_compares_with_items_outside_the_window(monkeypatch):
    negatives = jnp.array([[4, 6, 4, 1, 1], [3, 3, 3, 3, 1]])
    monkeypatch.setattr(
        ops_negatives, "absent", lambda key, seq, target, n: negatives[(seq[0] == 2) * 1]
    )
    model = model_of(loss="bce")
    example = Sequences(SEQ, jnp.array([2, 5]), jnp.ones(2), jnp.arange(2))
    got, _ = model.loss(weights(), (), jax.random.key(0), example)
    table = np.asarray(weights()["items"], np.float64)
    positive, negative = [], []
    for row, items in enumerate([[3, 1, 5, 2], [2, 4, 6, 1, 5]]):
        for n in range(1, len(items)):
            prefix = jnp.array([items[:n] + [0] * (5 - n)])
            point = model.sample(weights(), (), None, SequenceQuery(prefix, jnp.arange(1)))[0]
            p, q = (table[i] @ np.asarray(point) for i in (items[n], negatives[row, n - 1]))
            positive.append(np.log1p(np.exp(-p)))
            negative.append(np.log1p(np.exp(q)))
    np.testing.assert_allclose(got, np.mean(positive) + np.mean(negative), rtol=1e-5)


@pytest.mark.parametrize("source", ["uniform", "popularity", "in_batch"])
def test_a_sampled_softmax_is_corrected_by_its_log_q(source):
    counts = np.array([4, 1, 2, 3, 1, 1])
    settings = config(loss="sampled", negatives=source, num_negatives=4)
    model = sasrec.build(settings, SPEC._replace(item_counts=counts))
    example = Sequences(SEQ, jnp.array([2, 5]), jnp.ones(2), jnp.arange(2))
    key = jax.random.key(3)
    drawn = model.draw(key, example)
    ids = [2, 5] if source == "in_batch" else drawn.negatives.ids.tolist()
    prob = np.append(1, np.ones(6) if source == "uniform" else counts)
    table, each = np.asarray(weights()["items"], np.float64), []
    for items in [[3, 1, 5, 2], [2, 4, 6, 1, 5]]:
        for n in range(1, len(items)):
            prefix = jnp.array([items[:n] + [0] * (5 - n)])
            point = model.sample(weights(), (), None, SequenceQuery(prefix, jnp.arange(1)))[0]
            classes = [items[n], *(item for item in ids if item != items[n])]
            logits = table[classes] @ np.asarray(point, np.float64) - np.log(prob[classes])
            each.append(np.log(np.exp(logits).sum()) - logits[0])
    got, _ = model.loss(weights(), (), key, drawn)
    np.testing.assert_allclose(got, np.mean(each), rtol=1e-5)
    # drawn by the loss itself, and in histories of two lengths
    cut = example._replace(seq=(SEQ[:1, :3], SEQ[1:]))
    for same in (example, cut, model.draw(key, cut)):
        np.testing.assert_allclose(model.loss(weights(), (), key, same)[0], got, rtol=1e-5)


def losses_at(model, example):
    run = jax.jit(jax.value_and_grad(lambda p: model.loss(p, (), jax.random.key(0), example)[0]))
    return run(weights())


def with_all_items(**settings):
    every = jnp.arange(1, 7)
    example = Sequences(SEQ, jnp.array([2, 5]), jnp.ones(2), jnp.arange(2))
    shape = (2, 6) if settings["share"] == "sequence" else (2, 5, 6)
    model = sasrec.build(config(num_negatives=6, **settings), SPEC)
    return model, example._replace(negatives=jnp.broadcast_to(every, shape))


@pytest.mark.parametrize("share", ["sequence", "position"])
def test_against_all_items_a_sampled_softmax_is_the_full_one(share):
    model, example = with_all_items(loss="sampled", share=share)
    whole = sasrec.build(config(loss="full"), SPEC)
    plain = losses_at(whole, example._replace(negatives=None))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        losses_at(model, example), plain,
    )  # fmt: skip


@pytest.mark.parametrize("loss", ["sampled", "gbce"])
def test_negatives_of_a_sequence_are_those_of_its_places(loss):
    found = [losses_at(*with_all_items(loss=loss, share=s)) for s in ("sequence", "position")]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)


@pytest.mark.parametrize("share", ["batch", "sequence", "position"])
def test_gbce_is_its_formula_at_every_place(share):
    model = sasrec.build(config(loss="gbce", share=share, num_negatives=4, gbce_t=0.3), SPEC)
    example = Sequences(SEQ, jnp.array([2, 5]), jnp.ones(2), jnp.arange(2))
    key = jax.random.key(3)
    drawn = model.draw(key, example)
    ids = drawn.negatives.ids if share == "batch" else drawn.negatives
    table, each = np.asarray(weights()["items"], np.float64), []
    alpha = 4 / 5
    beta = alpha * (0.3 * (1 - 1 / alpha) + 1 / alpha)
    for row, items in enumerate([[3, 1, 5, 2], [2, 4, 6, 1, 5]]):
        for n in range(1, len(items)):
            prefix = jnp.array([items[:n] + [0] * (5 - n)])
            point = sasrec.build(config(), SPEC).sample(
                weights(), (), None, SequenceQuery(prefix, jnp.arange(1))
            )[0]
            logits = table @ np.asarray(point, np.float64)
            own = {"batch": ids, "sequence": ids[row % len(ids)], "position": ids[row % len(ids)]}
            own = own[share][n - 1] if share == "position" else own[share]
            others = [logits[j] for j in np.asarray(own) if j != items[n]]
            positive = beta * np.log1p(np.exp(-logits[items[n]]))
            each.append((positive + np.sum(np.log1p(np.exp(others)))) / 5)
    got, _ = model.loss(weights(), (), key, drawn)
    np.testing.assert_allclose(got, np.mean(each), rtol=1e-5)
    # drawn by the loss itself, and in histories of two lengths
    cut = example._replace(seq=(SEQ[:1, :3], SEQ[1:]))
    for same in (example, cut, model.draw(key, cut)):
        np.testing.assert_allclose(model.loss(weights(), (), key, same)[0], got, rtol=1e-5)


def test_a_share_of_negatives_that_there_is_none_of_is_refused():
    with pytest.raises(ValueError, match="the nearest is model.share=batch"):
        SASRecConfig(share="sequence")
    with pytest.raises(ValueError, match="negatives=popularity"):
        SASRecConfig(loss="sampled", share="position", negatives="popularity")
    with pytest.raises(ValueError, match="gbce-t"):
        SASRecConfig(loss="gbce", gbce_t=1.5)


def test_parameters_of_the_released_encoder():
    # 64 (N + 2) + 73,920 of the released encoder, less its mask token, 99 places beyond the longest
    # history, the place of padding and an unused 64 x 64 projection.
    released, num_items = 3_740_544, 57_289
    model = sasrec.build(SASRecConfig(), DataSpec(num_users=1, num_items=num_items, max_len=200))
    example = Sequences(jnp.ones((1, 9), jnp.int32), jnp.ones(1), jnp.ones(1), jnp.arange(1))
    params = jax.eval_shape(model.init, jax.random.key(0), example).params
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert count - filling(num_items + 1, 64) == released - 64 - 64 * 100 - 64 * 65


@pytest.mark.parametrize(
    ("items", "settings", "length", "count"),
    [
        (3_706, dict(width=64, num_blocks=2), 200, 300_608),
        (3_706, dict(width=64, num_blocks=2, block="ligr", ff_multiplier=4), 200, 398_784),
        (12_101, dict(width=256, num_blocks=1), 50, 3_507_200),
        (12_101, dict(width=256, num_blocks=1, block="ligr", ff_multiplier=4), 50, 4_293_120),
        (12_101, dict(width=64, num_blocks=1, block="ligr", ff_multiplier=4), 50, 852_096),
        (11_924, dict(width=256, num_blocks=1, block="ligr"), 50, 3_657_984),
    ],
)
def test_parameters_of_published_sizes(items, settings, length, count):
    # of the published networks, and that of the last place's norm, which a gated one has not
    model = sasrec.build(SASRecConfig(**settings), DataSpec(1, num_items=items, max_len=length))
    example = Sequences(jnp.ones((1, 9), jnp.int32), jnp.ones(1), jnp.ones(1), jnp.arange(1))
    params = jax.eval_shape(model.init, jax.random.key(0), example).params
    found = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert found - filling(items + 1, settings["width"]) == count


def test_inverse_positions_count_from_the_last_item():
    settings = dict(block="ligr", positions="inverse", scale_items=False, width=4)
    model, twice = model_of(**settings), model_of(**settings, mask="key")
    example = Sequences(SEQ, jnp.array([2, 5]), jnp.ones(2), jnp.arange(2))
    params, _ = model.init(jax.random.key(0), example)
    points = [
        m.sample(params, (), None, SequenceQuery(SEQ[:, :width], jnp.arange(2)))
        for m, width in ((model, 4), (twice, 5))
    ]
    np.testing.assert_allclose(*points, atol=1e-6)  # padding changes nothing
    moved = params | {"positions": params["positions"].at[3:].set(9.0)}
    one = SequenceQuery(jnp.array([[3, 1, 5, 0, 0]]), jnp.arange(1))
    np.testing.assert_allclose(
        model.sample(moved, (), None, one), model.sample(params, (), None, one), atol=1e-6
    )
    four = SequenceQuery(jnp.array([[3, 1, 5, 2, 0]]), jnp.arange(1))
    found = model.sample(moved, (), None, four) - model.sample(params, (), None, four)
    assert np.abs(found).max() > 1e-3
    read = sasrec.reader(
        config(**settings), SPEC, sasrec.export(config(**settings), SPEC, params, ())
    )
    rows = params["items"][jnp.array([[3, 1, 5]])]
    np.testing.assert_allclose(
        read.read(read.params, rows), model.sample(params, (), None, one), atol=1e-6
    )


def test_the_last_window_is_the_newest_of_each_user(tmp_path):
    path = tmp_path / "clicks.csv"
    lines = ["user,item,time"]
    rng = np.random.default_rng(0)
    lengths = {user: int(rng.integers(4, 14)) for user in range(30)}
    for user, length in lengths.items():
        for time, item in enumerate(rng.permutation(20)[:length]):
            lines.append(f"{user},{item},{time}")
    path.write_text("\n".join(lines))
    data = DataConfig(max_len=3)
    dataset = load(str(path), data)
    every, last = (
        registry.input_of(SASRecConfig(windows=windows)).batcher(dataset, data)
        for windows in ("all", "last")
    )
    whole = dataset.user_items
    assert last.num_examples == np.sum(whole.end - whole.start > 1)
    index = jnp.arange(last.num_examples, dtype=jnp.int32)
    found = last.example(last.train, index, index, jax.random.key(0))
    shown = {
        tuple(np.append(seq[seq > 0], t))
        for seq, t in zip(*map(np.asarray, found[:2]), strict=True)
    }
    wanted = set()
    for start, end in zip(whole.start, whole.end, strict=True):
        items = whole.items[start:end][-4:]
        wanted.add(tuple(items.tolist()))
    assert shown == {each for each in wanted if len(each) > 1}
    index = jnp.arange(every.num_examples, dtype=jnp.int32)
    targets = every.example(every.train, index, index, jax.random.key(0))
    places = int((np.asarray(targets.seq) > 0).sum())
    assert places == np.sum(whole.end - whole.start - 1)  # every item but the first, once


def test_a_network_that_was_stored_before_tables_were_filled_up_is_read():
    exported = sasrec.export(config(), SPEC, weights(), ())
    before = exported | {"network/items": exported["network/items"][:7]}
    items = jnp.asarray(exported["items"])[jnp.array([[2, 0, 4]])]
    points = [
        read.read(read.params, items)
        for read in (sasrec.reader(config(), SPEC, arrays) for arrays in (exported, before))
    ]
    np.testing.assert_array_equal(*points)


def test_export_is_the_item_table():
    exported = sasrec.export(config(), SPEC, weights(), ())
    np.testing.assert_array_equal(exported["items"], weights()["items"][1:7])


def test_bad_settings():
    with pytest.raises(ValueError, match="nearest is 6"):
        SASRecConfig(width=7, num_heads=3)
    with pytest.raises(ValueError, match="init-scale"):
        SASRecConfig(init_scale=0.0)
    with pytest.raises(ValueError, match="in_batch needs --model.loss=sampled, got full"):
        SASRecConfig(negatives="in_batch")
