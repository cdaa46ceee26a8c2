"""Vectors of items: read, laid beside the items, scaled."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import cli
from jaxrec_diff.data import item_features
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.experiments import restore, workdirs

ITEMS = ["apple", "fig", "lime", "pear"]
_RNG = np.random.default_rng(0)
VECTORS = _RNG.normal(size=(5, 3)).astype(np.float32)


@pytest.fixture
def clicks(tmp_path):
    path = tmp_path / "clicks.csv"
    rows = [f"u{u},{ITEMS[(u + k) % 4]}" for u in range(6) for k in range(4)]
    path.write_text("\n".join(["user_id,item_id", *rows]))
    return path


def given(tmp_path, names=(*ITEMS, "plum"), vectors=VECTORS, name="vectors.parquet", **columns):
    path = tmp_path / name
    columns = columns or {"embedding": list(vectors)}
    pq.write_table(pa.table({"item_id": list(names)} | columns), path)
    return path


def attached(clicks, path, **settings):
    return load(str(clicks), DataConfig(item_features=str(path), **settings))


def test_vectors_lie_beside_their_items_whatever_the_order_and_the_form(tmp_path, clicks):
    order = [3, 0, 4, 2, 1]
    names = np.array([*ITEMS, "plum"])[order].tolist()
    lists = given(tmp_path, names, VECTORS[order])
    numbers = {f"x{d}": VECTORS[order, d] for d in range(3)}
    columns = given(tmp_path, names, name="columns.pq", **numbers)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS[order].ravel()), 3)
    want = VECTORS[:4] - VECTORS[:4].astype(np.float64).mean(axis=0)
    for path in (lists, columns, given(tmp_path, names, name="fixed.parquet", v=fixed)):
        data = attached(clicks, path, item_features_scaling="centre")
        assert data.item_ids.tolist() == ITEMS
        np.testing.assert_allclose(data.item_vectors.rows, want, atol=1e-6)
        assert data.card["item_features"]["other_items"] == 1
        assert data.card["item_features"]["width"] == 3
        assert data.card["hash"] == load(str(clicks), DataConfig()).card["hash"]


def test_the_digest_is_of_the_items_vectors(tmp_path, clicks):
    def hashed(vectors, **settings):
        path = given(tmp_path, vectors=vectors)
        return attached(clicks, path, **settings).card[item_features.HASH]

    other, extra = VECTORS.copy(), VECTORS.copy()
    other[2, 1] += 1e-3
    extra[4] = 9.0  # an item that the data does not hold
    assert hashed(VECTORS) == hashed(extra) != hashed(other)


def test_rows_of_a_npy_file_are_ids(tmp_path):
    path, vectors = tmp_path / "clicks.csv", tmp_path / "vectors.npy"
    rows = [f"{u},{3 + (u + k) % 4}" for u in range(6) for k in range(4)]
    path.write_text("\n".join(["user_id,item_id", *rows]))
    np.save(vectors, np.arange(24.0).reshape(8, 3))
    data = attached(path, vectors, item_features_scaling="centre")
    np.testing.assert_allclose(data.item_vectors.rows[:, 0], [-4.5, -1.5, 1.5, 4.5])
    config = DataConfig(item_features=str(vectors))
    ids, found = item_features.others(vectors, config, data.item_ids)
    assert ids.tolist() == [1, 2, 7]  # ids are from 1 on, so row 0 is nobody's
    np.testing.assert_array_equal(found, [[3, 4, 5], [6, 7, 8], [21, 22, 23]])
    gaps = np.arange(24.0).reshape(8, 3)
    gaps[:3] = 0.0
    np.save(vectors, gaps)
    assert item_features.others(vectors, config, data.item_ids)[0].tolist() == [7]
    ids, _ = item_features.others(vectors, config, data.item_ids - 3)  # from 0 on
    assert ids.tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("count", [500, 20])
def test_whitened_coordinates_are_uncorrelated_and_of_one_variance(count):
    mix = np.diag([5.0, 3.0, 1.0, 0.3]) @ np.random.default_rng(1).normal(size=(4, 24))
    vectors = np.random.default_rng(2).normal(size=(count, 4)) @ mix + 7.0
    scaling = item_features.fit(vectors.astype(np.float32), "whiten")
    rows = scaling.apply(vectors)
    # of 24 coordinates 4 are independent; the others hold rounding
    assert rows.shape == (count, 4)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(4), atol=2e-4)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-4)
    # by numpy's singular values, whose leading direction comes first
    left = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0]
    cosine = np.abs(np.sum(left[:, :4] * rows, axis=0)) / np.sqrt(count)
    np.testing.assert_allclose(cosine, 1.0, atol=1e-3)


def test_one_factor_keeps_angles():
    scaling = item_features.fit(VECTORS * 40.0 + 3.0, "scale")
    rows, centred = scaling.apply(VECTORS * 40.0 + 3.0), VECTORS - VECTORS.mean(axis=0)
    np.testing.assert_allclose(np.mean(rows**2), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows, centred / np.sqrt(np.mean(centred**2)), rtol=1e-4)


def test_rows_are_as_wide_as_the_model_and_as_long_as_its_own():
    rows = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    whiten, centre = (DataConfig(item_features_scaling=kind) for kind in ("whiten", "centre"))
    np.testing.assert_allclose(item_features.rows_for(rows, whiten, 2, 0.5), rows[:, :2] * 0.5)
    np.testing.assert_allclose(item_features.rows_for(rows, centre, 4, 0.5), rows)
    for config, width, match in (
        (whiten, 6, "4 independent directions and model.width is 6; take model.width=4$"),
        (centre, 2, "4 coordinates and model.width is 2; take model.width=4, or .*=whiten"),
    ):
        with pytest.raises(ValueError, match=match):
            item_features.rows_for(rows, config, width, 1.0)


# whole numbers of more digits than float32 has, and halves
@pytest.mark.parametrize(
    "vectors", [VECTORS.astype(np.int64) + 2**24 + 1, VECTORS.astype(np.float16)]
)
def test_numbers_of_any_kind_are_read(tmp_path, clicks, vectors):
    kind = pa.from_numpy_dtype(vectors.dtype)
    columns = {f"x{d}": pa.array(vectors[:, d], kind) for d in range(3)}
    paths = (
        given(tmp_path, v=pa.array(list(vectors), pa.list_(kind))),
        given(tmp_path, name="columns.pq", **columns),
    )
    want = vectors[:4].astype(np.float32)
    for path in paths:
        np.testing.assert_array_equal(item_features.read(path, DataConfig())[1], vectors)
        rows = attached(clicks, path, item_features_scaling="centre").item_vectors.rows
        assert rows.dtype == np.float32
        np.testing.assert_array_equal(rows, want - want.mean(0, dtype=float).astype(np.float32))


_NAN = np.where(np.arange(15).reshape(5, 3) == 4, np.nan, VECTORS)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda at: at / "none.npy", "is no file; name a .npy or .parquet file of vectors"),
        (lambda at: given(at, ITEMS[:2], VECTORS[:2]), "no vector of 2 of the 4 items .*'lime'"),
        (lambda at: given(at, vectors=_NAN), "holds nan in the vector of item 'fig'"),
        (lambda at: given(at, [*ITEMS, "fig"]), "two vectors of item 'fig'"),
        (lambda at: given(at, vectors=[*VECTORS[:4], [1.0]]), "3 numbers .* of 1 for 'plum'"),
        (lambda at: given(at, text=["a"] * 5), "no numbers beside its ids"),
        (lambda at: given(at, a=list(VECTORS), b=list(VECTORS)), "2 columns of lists"),
        (lambda at: given(at, v=[["a"]] * 5), "vectors are of numbers"),
        (lambda at: given(at, vectors=np.ones((5, 3))), "are the same"),
        (lambda at: given(at, name="vectors.npz"), "end in .npy, .parquet"),
        (lambda at: _saved(at, np.ones(4)), r"should be numbers \[rows, width\]"),
        (lambda at: _saved(at, np.array([["a"]])), "should be numbers"),
        (lambda at: _saved(at, VECTORS), "no vector of 4 of the 4 items"),
        (lambda at: given(at, vectors=VECTORS.astype(float) * 1e300), "holds -?inf in the vector"),
        (lambda at: _written(at, "v.npy", b"x"), "not a readable npy file"),
        (lambda at: _cut(_saved(at, VECTORS)), "not a readable npy file"),
        (lambda at: _written(at, "v.parquet", b"x"), "v.parquet"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path, clicks, make, match):
    with pytest.raises(ValueError, match=match):
        attached(clicks, make(tmp_path))


def _saved(at, array):
    np.save(at / "vectors.npy", array)
    return at / "vectors.npy"


def _cut(path):
    """A file whose head speaks of more than any memory holds."""
    head = path.read_bytes()
    path.write_bytes(head.replace(b"(5, 3)", b"(5000000000000, 3)", 1)[: len(head)])
    return path


def _written(at, name, data):
    (at / name).write_bytes(data)
    return at / name


def test_a_file_of_known_items_has_no_new_ones(tmp_path):
    path, known = given(tmp_path), np.array(ITEMS, object)
    ids, vectors = item_features.others(path, DataConfig(), known)
    assert ids.tolist() == ["plum"]
    np.testing.assert_array_equal(vectors, VECTORS[4:])
    with pytest.raises(ValueError, match="nothing new"):
        item_features.others(path, DataConfig(), np.array([*ITEMS, "plum"], object))


@pytest.mark.slow
def test_a_run_keeps_its_vectors(tmp_path, capsys):
    """Frozen rows are those of the file to the end; other vectors are another run."""
    vectors = np.random.default_rng(3).normal(size=(40, 6)).astype(np.float32)
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", 2.0 * vectors[::-1])
    workdir = tmp_path / "run"

    def train(*flags, width=4, epochs=1):
        # fmt: off
        return cli.main([
            "train", "--model=sasrec", "--data.synthetic.num-users=60", f"--model.width={width}",
            "--data.synthetic.num-items=40", "--model.num-blocks=1", "--data.max-len=6",
            f"--train.num-epochs={epochs}", "--train.batch-size=32", f"--workdir={workdir}", *flags,
        ])
        # fmt: on

    def features(name):
        return f"--data.item-features={tmp_path / name}"

    assert train(features("a.npy"), width=8) == 2
    assert "6 independent directions and model.width is 8" in capsys.readouterr().err
    assert not workdir.exists()
    assert train(features("a.npy")) == 0
    card = json.loads((workdir / "data_card.json").read_text())
    assert card["item_features"]["width"] == 6 and len(card[item_features.HASH]) == 64
    assert train() == 2
    assert train(features("b.npy"), epochs=2) == 2
    assert "item" in capsys.readouterr().err
    np.save(tmp_path / "a.npy", 3.0 * vectors[::-1])
    assert train(features("a.npy"), epochs=2) == 2
    assert "vectors of items with hash" in capsys.readouterr().err
    (tmp_path / "a.npy").unlink()  # a trained model does not need it
    params = restore.restore(restore.reopen(workdir), workdir).params
    scaling = workdirs.read_scaling(workdir)
    want = 0.02 * scaling.apply(vectors)[:, :4]  # SASRec's own deviation
    np.testing.assert_allclose(params["items"][1:41], want, rtol=1e-5)
    np.save(tmp_path / "more.npy", np.concatenate([vectors, vectors[:2] + 1.0]))
    capsys.readouterr()
    asked = ["recommend", f"--workdir={workdir}", "--history=3,41", "--k=42", "--include-seen"]
    assert cli.main([*asked, f"--new-items={tmp_path / 'more.npy'}", "--json", "--quiet"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["lists"][0]["items"]) == set(range(42))
    asked = ["evaluate", f"--workdir={workdir}", "--data.item-features-use=initial"]
    assert cli.main(asked) == 2
    assert "was trained with data.item-features-use=frozen" in capsys.readouterr().err
