"""Figures of ML-1M that programs of other hands measured, test split: R@10, R@20, N@10, N@20."""

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from jaxrec_diff.classics import ease, graph_filter, ials, scores, similarity, slim
from jaxrec_diff.classics.similarity import ALL, Kernel
from jaxrec_diff.ops import smoothing
from tests.classics.samples import rows_of


@pytest.fixture(scope="module")
def data(real_data):
    found = {}

    def read(folder):
        if folder not in found:
            tables = [
                pq.read_table(real_data / folder / f"{split}.parquet")
                for split in ("train", "valid", "test")
            ]
            pairs = [(t["user_id"].to_numpy(), t["item_id"].to_numpy()) for t in tables]
            shape = [max(part[axis].max() for part in pairs) + 1 for axis in (0, 1)]
            found[folder] = [
                sparse.csr_array((np.ones(len(users)), (users, items)), shape)
                for users, items in pairs
            ]
        return found[folder]

    return read


def rows(x):
    return rows_of(x.toarray())


def figures(score, train, valid, test):
    """Means over users with an answer; items of training and validation are no candidates."""
    discount, sums, users = 1 / np.log2(np.arange(2, 22)), np.zeros(4), 0
    trained = train.sum(axis=0) > 0
    for first in range(0, train.shape[0], 1024):
        part = slice(first, first + 1024)
        found = np.array(score(rows(train[part])), np.float64)
        found[(train[part] + valid[part]).toarray() > 0] = -np.inf
        found[:, ~trained] = -np.inf
        answers = test[part].toarray() > 0
        size = answers.sum(axis=1)
        hit = np.take_along_axis(answers, np.argsort(-found, axis=1, kind="stable")[:, :20], 1)
        hit, size = hit[size > 0], size[size > 0]
        ideal = np.cumsum(discount)
        sums += np.concatenate(
            [
                [(hit[:, :k].sum(axis=1) / size).sum() for k in (10, 20)],
                [
                    (hit[:, :k] @ discount[:k] / ideal[np.minimum(size, k) - 1]).sum()
                    for k in (10, 20)
                ],
            ]
        )
        users += len(size)
    return sums / users


def near(sets, items, count, **kernel):
    alike = similarity.most_alike(sets, items, Kernel(**kernel), count and count + 1)
    return scores.of_weights(similarity.weights(similarity.cut(alike, count)))


def filtered(sets, items, vectors, strength):
    found = graph_filter.spectrum(sets, items, max(vectors, 1))
    return graph_filter.fit(found, vectors, strength)


def smoothed(sets, items):
    """GiffCF's filter without its network (arXiv:2311.08744)."""
    held = jax.tree.map(jnp.asarray, smoothing.make(sets, items))
    assert abs(float((held.by_item[0, 0] ** -2) / np.sum(sets.members == 0)) - 11.30879441) < 1e-4
    apply = jax.jit(lambda rows: smoothing.smooth(held, rows))
    return lambda sets: np.asarray(apply(scores.matrix(sets, items).toarray().astype(np.float32)))


SLOW = pytest.mark.slow
FIGURES = [
    ("clean", lambda s, n: near(s, n, 100), 0.1018, 0.1702, 0.0904, 0.1136),
    ("clean", lambda s, n: ease.fit(s, n, 700.0, 0.25), 0.1083, 0.1826, 0.0916, 0.1169),
    ("clean", smoothed, 0.0895, 0.1462, 0.0852, 0.1031),
]
SLOW_FIGURES = [
    ("noisy", lambda s, n: near(s, n, ALL, p=0.4, r=0.6), 0.0783, 0.1368, 0.0600, 0.0820),
    ("clean", lambda s, n: near(s, n, 100, p=0.4, r=0.6, shrink=10), 0.0998, 0.1702, 0.0881, 0.112),
    ("clean", lambda s, n: near(s, n, 100, of_sets=True), 0.0973, 0.1590, 0.0886, 0.1090),
    ("clean", lambda s, n: near(s, n, 100, user_power=0.25), 0.0995, 0.1728, 0.0866, 0.1115),
    ("clean", lambda s, n: near(s, n, 100, p=1.0, q=1.0, r=0.0), 0.0909, 0.1545, 0.0791, 0.1003),
    ("clean", lambda s, n: near(s, n, ALL, p=0.7, q=0.7, r=0.6), 0.1001, 0.1650, 0.0892, 0.1101),
    ("clean", lambda s, n: near(s, n, ALL, p=0.8, q=0.25, r=0.6), 0.1044, 0.1697, 0.0942, 0.1158),
    ("clean", lambda s, n: filtered(s, n, 0, 0.0), 0.0880, 0.1455, 0.0820, 0.0999),
    ("clean", lambda s, n: filtered(s, n, 256, 0.3), 0.0957, 0.1665, 0.0815, 0.1053),
    ("clean", lambda s, n: filtered(s, n, 128, 0.1), 0.0957, 0.1625, 0.0844, 0.1062),
    ("clean", lambda s, n: ease.fit(s, n, 1000.0), 0.1066, 0.1816, 0.0910, 0.1165),
    ("clean", lambda s, n: slim.fit(slim.shared(s, n), 1.0, 800.0), 0.1066, 0.1784, 0.0915, 0.1158),
    ("noisy", lambda s, n: near(s, n, ALL), 0.0769, 0.1328, 0.0601, 0.0812),
    ("noisy", lambda s, n: near(s, n, 100, p=0.5, q=0.5, r=0.0), 0.0664, 0.1211, 0.0524, 0.0724),
    ("noisy", lambda s, n: ease.fit(s, n, 700.0, 0.25), 0.0707, 0.1342, 0.0504, 0.0738),
    ("noisy", lambda s, n: slim.fit(slim.shared(s, n), 5.0, 800.0), 0.0722, 0.1345, 0.0515, 0.0749),
]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "fit", "want"),
    [(folder, fit, want) for folder, fit, *want in FIGURES]
    + [pytest.param(folder, fit, want, marks=SLOW) for folder, fit, *want in SLOW_FIGURES],
)
def test_figures_of_given_settings(folder, fit, want, data):
    train, valid, test = data(f"ml-1m-{folder}")
    found = figures(fit(rows(train), train.shape[1]), train, valid, test)
    np.testing.assert_allclose(found, want, atol=3e-4)


@pytest.mark.slow
def test_ials_has_the_figures_of_its_setting(data):
    """Its start is drawn, by another generator than theirs."""
    train, valid, test = data("ml-1m-clean")
    items = ials.items(rows(train), train.shape[1], regularisation=0.01, epochs=4)
    found = figures(ials.score_by(items, 0.1, 0.01), train, valid, test)
    np.testing.assert_allclose(found, [0.1042, 0.1804, 0.0849, 0.1110], atol=3e-3)
