"""What every kind of input keeps: a history asked about is the query that a split would hold."""

import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import batches
from jaxrec_diff.batches.input import Input


def _every():
    folder = Path(batches.__file__).parent
    for path in sorted(folder.glob("*.py")):
        module = import_module(f"jaxrec_diff.batches.{path.stem}")
        yield from (
            value for _, value in inspect.getmembers(module, lambda v: isinstance(v, Input))
        )


EVERY = {kind.name: kind for kind in _every()}
KINDS = pytest.mark.parametrize("name", EVERY)


def test_known_kinds_are_met():
    assert EVERY.keys() >= {
        "sequences", "windows", "interactions", "triplets", "triplets_by_user", "whole_sequences",
        "prefixes",
    }  # fmt: skip


@KINDS
@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_history_is_asked_as_the_split_asks_it(name, split, dataset, settings):
    kind = EVERY[name]
    viewed = kind.view(dataset, settings)
    fed = kind.batcher(viewed, settings)
    rows = kind.reads(viewed, split)
    count = len(rows.start)
    want = fed.query(fed.splits[split], jnp.arange(count))
    width = int(np.max(rows.end - rows.start)) + 3
    history = np.zeros((count, width), np.int32)
    for row, (start, end) in enumerate(zip(rows.start, rows.end, strict=True)):
        history[row, : end - start] = rows.items[start:end]
    users = {"valid": viewed.valid_users, "test": viewed.test_users}[split]
    ask = jax.jit(lambda *arrays: kind.from_history(*arrays, settings))
    got = ask(history, jnp.arange(count), jnp.asarray(users))
    assert type(got) is type(want)
    for field, mine, theirs in zip(got._fields, got, want, strict=True):
        assert mine.dtype == theirs.dtype, field
        if mine.ndim == 2:  # padding may be wider; synthetic users take no item twice
            common = min(mine.shape[1], theirs.shape[1])
            assert not np.any(mine[:, common:]) and not np.any(theirs[:, common:])
            mine, theirs = mine[:, :common], theirs[:, :common]
        np.testing.assert_array_equal(mine, theirs, field)


@KINDS
def test_only_kinds_that_know_users_read_the_user(name, settings):
    kind = EVERY[name]
    history, row_id = jnp.array([[3, 1, 0], [2, 0, 0]]), jnp.arange(2)
    queries = [kind.from_history(history, row_id, jnp.full(2, user), settings) for user in (0, 9)]
    same = [np.array_equal(a, b) for a, b in zip(*queries, strict=True)]
    assert all(same) or hasattr(queries[0], "user")
    if kind.knows_users:
        assert queries[1].user.tolist() == [9, 9]


# the query of a kind that knows users is the user's number: nothing of a history is weighed
@pytest.mark.parametrize("name", [name for name, kind in EVERY.items() if not kind.knows_users])
def test_time_weights_change_queries_where_a_kind_says_so(name, settings):
    kind = EVERY[name]
    history, zero = jnp.array([[3, 1, 2, 0]]), jnp.zeros(1, jnp.int32)
    weights = [1.0, 0.5]
    asked = [
        kind.from_history(history, zero, zero, replace(settings, time_weight_min=low))
        for low in weights
    ]
    changed = any(not np.array_equal(a, b) for a, b in zip(*asked, strict=True))
    assert changed == kind.weighs_by_time
