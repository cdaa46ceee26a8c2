"""BERT4Rec against the released encoder filled by formula, and what is masked."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches.types import SequenceQuery, WholeSequences
from jaxrec_diff.models import bert4rec
from jaxrec_diff.models.bert4rec import Bert4RecConfig, Bert4RecNet
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.ops import filled
from tests.models.compiled import applied, compiled
from tests.models.tables import filling

SPEC = DataSpec(num_users=4, num_items=6, max_len=5)
CONFIG = Bert4RecConfig(width=4, dropout_rate=0.0, pad_key_mask=False)
KEY = jax.random.key(2)


def released():
    """Parameters by formula: projections .3 sin(1 + k + out + 2 in), rows .5 sin(1 + r + 2 c)."""
    out, fan_in = np.arange(4)[None, :], np.arange(4)[:, None]

    def affine(k, shift):
        kernel = 0.3 * np.sin(1 + k + out + 2 * fan_in)
        return {"kernel": kernel, "bias": 0.01 * np.cos(np.arange(4) + shift)}

    norm = {"norm": {"scale": 1 + 0.1 * np.cos(np.arange(4)), "bias": 0.05 * np.sin(np.arange(4))}}
    block = {name: affine(k, k) for k, name in enumerate(("query", "key", "value", "out"))}
    block |= {name: affine(0, 0) for name in ("feed_in", "feed_out")}
    block |= {"norm_attention": norm, "norm_feed": norm}
    row = lambda count: 0.5 * np.sin(1 + np.arange(count)[:, None] + 2 * np.arange(4))
    items = row(8)
    items[0] = 0.0
    return {
        "items": filled.padded(items),
        "positions": row(105),
        "encoder": {"blocks_0": block, "blocks_1": block, "norm_out": norm},
    }


def walk(seq, first=None, rows=None):
    seq = jnp.asarray(seq)
    first = jnp.zeros(len(seq), int) if first is None else jnp.asarray(first)
    rows = jnp.arange(len(seq)) if rows is None else rows
    return WholeSequences(seq, first, jnp.full(seq.shape, 6), jnp.ones(len(seq)), rows)


def test_scores_and_loss_of_the_released_encoder():
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, released())
        net = Bert4RecNet(6, 5, CONFIG)
        seq = jnp.array([[3, 1, 5, 0, 0], [2, 4, 6, 1, 0]])
        # released rows are padded on the left by two and by one: as many places as there are here
        features = applied(net)({"params": params}, seq, method="encode")
        last = features[jnp.arange(2), jnp.array([2, 3])]
        np.testing.assert_allclose(
            last[0], [-1.038649237302, 1.713852271706, 0.159358298977, -0.678330421879], rtol=1e-7
        )
        np.testing.assert_allclose(
            last[1], [1.049959998512, -1.582752354593, -0.171355574794, 0.739806033676], rtol=1e-7
        )
        asked, place = bert4rec.with_mask(seq, 7)
        found = applied(net)({"params": params}, asked, place, method="encode")
        np.testing.assert_allclose(
            found @ params["items"][1:7].T,
            [[1.423394529538, 0.404729261389, -0.986042223176, -1.47025103512, -0.602717825785,
              0.818951373001],
             [1.153836789258, -0.052490419008, -1.21055817811, -1.255644331032, -0.146296876704,
              1.097555251383]],
            rtol=1e-7,
        )  # fmt: skip
        label = jnp.array([[0, 1, 0, 0, 0], [0, 4, 0, 1, 0]])
        negative = jnp.array([[0, 2, 0, 0, 0], [0, 3, 0, 5, 0]])
        weight = (label > 0).astype(features.dtype)
        value = bert4rec.binary(features, params["items"], label, negative, weight)
        np.testing.assert_allclose(value, 1.206343374185704, rtol=1e-8)


def test_loss_asks_for_what_stood_behind_the_mask():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), released())
    made = bert4rec.parts(replace(CONFIG, last_share=1.0), SPEC)
    batch = walk([[3, 1, 5, 0, 0], [2, 4, 0, 0, 0]])  # the negatives are item 6
    expected = []
    for shown, place, item in (([3, 1, 7, 0, 0], 2, 5), ([2, 7, 0, 0, 0], 1, 4)):
        found = made.net.apply({"params": params}, jnp.array([shown]), method="encode")[0, place]
        right, wrong = (float(found @ params["items"][i]) for i in (item, 6))
        expected.append(np.log1p(np.exp(-right)) + np.log1p(np.exp(wrong)))
    value, aux = bert4rec.loss(made, params, (), KEY, batch)
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)
    assert aux.metrics["loss"] == value


def test_the_full_loss_is_a_softmax_over_items_alone():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), released())
    made = bert4rec.parts(replace(CONFIG, last_share=1.0, loss="full"), SPEC)
    expected, items = [], np.asarray(params["items"], np.float64)[1:7]  # no padding, no mask
    for shown, place, item in (([3, 1, 7, 0, 0], 2, 5), ([2, 7, 0, 0, 0], 1, 4)):
        found = made.net.apply({"params": params}, jnp.array([shown]), method="encode")[0, place]
        logits = items @ np.asarray(found, np.float64)
        expected.append(np.log(np.exp(logits).sum()) - logits[item - 1])
    value, _ = bert4rec.loss(made, params, (), KEY, walk([[3, 1, 5, 0, 0], [2, 4, 0, 0, 0]]))
    np.testing.assert_allclose(value, np.mean(expected), rtol=1e-5)


def test_number_of_parameters():
    net = Bert4RecNet(57_289, 200, Bert4RecConfig())
    shapes = jax.eval_shape(
        lambda: net.init(KEY, jnp.ones((1, 200), jnp.int32), method="encode")["params"]
    )
    # the released encoder also holds a projector of 64 x 64 + 64 that nothing reads
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) - filling(57_291, 64)
    assert count == 3_740_544 - 4_160


def test_generated_items_and_padding_are_never_to_be_found():
    batch = walk(np.tile([[6, 5, 1, 2, 3, 0]], (400, 1)), first=np.full(400, 2))
    shown, labelled = bert4rec.masked(CONFIG, KEY, batch, 7)
    share = np.asarray(labelled.mean(axis=0))
    assert share[[0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(share[[2, 3, 4]], [0.2, 0.2, 0.7], atol=0.08)
    assert (np.asarray(shown != batch.seq) <= np.asarray(labelled)).all()
    hidden = np.asarray(shown)[np.asarray(labelled)]
    assert 0.85 < (hidden == 7).mean() < 0.98  # of those masked alone all are
    everything = Bert4RecConfig(width=4, mask_generated=True, mask_prob=1.0, last_share=0.0)
    assert np.asarray(bert4rec.masked(everything, KEY, batch, 7)[1])[:, :5].all()


def test_what_is_drawn_for_a_row_does_not_depend_on_the_batch():
    batch = walk([[1, 2, 3, 4, 0, 0]] * 6)
    whole = bert4rec.masked(CONFIG, KEY, batch, 7)
    part = bert4rec.masked(CONFIG, KEY, jax.tree.map(lambda leaf: leaf[2:4], batch), 7)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a[2:4], b)


def test_several_lengths_are_one_batch():
    # everything is masked and nothing dropped: only what is drawn at a place could differ
    config = Bert4RecConfig(width=4, dropout_rate=0.0, last_share=1.0, init_scale=1.0)
    model = compiled(bert4rec.build(config, SPEC))
    batch = walk([[1, 2, 0, 0, 0], [3, 4, 0, 0, 0], [5, 6, 1, 2, 0]], first=[0, 1, 0])
    batch = batch._replace(negative=jnp.arange(15).reshape(3, 5) % 6 + 1)
    params, _ = model.init(KEY, batch)
    cut = batch._replace(
        seq=(batch.seq[:2, :2], batch.seq[2:]),
        negative=(batch.negative[:2, :2], batch.negative[2:]),
    )
    (whole, _), (parts, _) = (model.loss(params, (), KEY, each) for each in (batch, cut))
    np.testing.assert_allclose(parts, whole, rtol=1e-6)


def test_a_shorter_query_keeps_its_oldest_item():
    model = compiled(bert4rec.build(replace(CONFIG, pad_key_mask=True), SPEC))
    params, _ = model.init(KEY, walk([[1, 2, 3, 0, 0]]))
    params = dict(params) | {"items": params["items"] * 50}  # far enough apart to be seen
    rows = jnp.arange(1)
    short, padded, without = (
        model.sample(params, (), KEY, SequenceQuery(jnp.array(seq), rows))
        for seq in ([[1, 2, 3]], [[1, 2, 3, 0, 0]], [[2, 3, 0, 0, 0]])
    )
    np.testing.assert_allclose(short, padded, rtol=1e-5)
    assert np.abs(short - without).max() > 1e-3


def test_export_is_read_back_and_moves_with_the_points():
    config = Bert4RecConfig(width=4, dropout_rate=0.0, init_scale=1.0)
    model = compiled(bert4rec.build(config, SPEC))
    params, _ = model.init(KEY, walk([[1, 2, 3, 0, 0]]))
    arrays = bert4rec.export(config, SPEC, params, ())
    np.testing.assert_array_equal(arrays["items"], params["items"][1:7])
    read = bert4rec.reader(config, SPEC, arrays)
    points = jnp.asarray(arrays["items"])[jnp.array([[0, 1, 2]])]
    asked = SequenceQuery(jnp.array([[1, 2, 3, 0, 0]]), jnp.array([0]))
    wanted = model.sample(params, (), KEY, asked)
    np.testing.assert_allclose(read.read(read.params, points), wanted, rtol=1e-5)
    moved = read.read(read.params, points + 0.5 * jnp.eye(4)[:3])
    assert np.abs(moved - wanted).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (dict(width=7, num_heads=4), "multiple of model.num-heads=4, got 7; the nearest is 8"),
        (dict(width=0), "nearest is 1"),
        (dict(num_heads=0), "num-heads must be at least 1, got 0"),
        (dict(mask_prob=1.2), "nearest valid value is 1"),
        (dict(mask_prob=0.0, last_share=0.0), "masks nothing"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(ValueError, match=word):
        Bert4RecConfig(**settings)
