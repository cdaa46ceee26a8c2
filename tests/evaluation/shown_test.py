"""What a network is shown: strangers are strangers, and a view reaches every call."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import cut
from jaxrec_diff.diffusion import forward, samplers
from jaxrec_diff.diffusion.process import Chain, Steps
from jaxrec_diff.evaluation import evaluator, shown
from jaxrec_diff.evaluation.shown import Asked
from jaxrec_diff.models.contract import Head, Model
from jaxrec_diff.ops.ragged import Ragged


@pytest.mark.parametrize("seed", range(5))
def test_everybody_is_shown_a_stranger_and_nobody_twice(seed):
    random = np.random.default_rng(seed)
    users = random.integers(0, 12, 200)
    users[: 60 + seed] = 3  # the largest has many rows
    other = shown.strangers(users, np.random.default_rng(seed))
    assert (users[other] != users).all() and sorted(other.tolist()) == list(range(200))
    assert not np.array_equal(other, shown.strangers(users, np.random.default_rng(seed + 9)))


def test_half_of_the_rows_is_the_most_that_one_user_may_have():
    users = np.array([1, 1, 2, 5])
    assert (users[shown.strangers(users, np.random.default_rng(0))] != users).all()
    with pytest.raises(ValueError, match="one user has 3 of 4 rows"):
        shown.strangers(np.array([1, 1, 1, 5]), np.random.default_rng(0))


class Query(NamedTuple):
    at: jax.Array
    row_id: jax.Array | None = None


def asked_of(own, other, items):
    return Asked(
        Query(jnp.array(own)), Query(jnp.array(other)), jnp.array(items), jnp.arange(len(own))
    )


def recording(finish_step=None):
    """A model whose estimate is what it is shown, times ten; its end is ten times that again."""
    steps = Steps(jnp.array([2, 1]), jnp.ones(2), jnp.zeros(2), jnp.zeros(2), jnp.zeros(2))
    return Model(
        init=None,
        loss=None,
        sample=None,
        head=lambda params, state: Head(jnp.eye(3)),
        chain=lambda params, state, key, query: Chain(steps, lambda xt, t: 10.0 * xt, query.at),
        finish=lambda params, state, end: end + 0.5,
        finish_step=finish_step,
        noised=lambda params, state, key, of, items, t: of.at + items[:, :1] + 0.0 * t,
    )


def test_the_network_sees_the_view_at_every_call():
    asked = asked_of([[1.0], [1.0]], [[3.0], [4.0]], [[5], [6]])
    model = recording()
    points = {
        seen: shown.seen_through(model, seen).sample((), (), jax.random.key(0), asked)
        for seen in (shown.itself, shown.nothing, shown.the_answer)
    }
    assert points[shown.itself].tolist() == [[100.5], [100.5]]  # twice times ten
    assert points[shown.nothing].tolist() == [[0.5], [0.5]]
    assert points[shown.the_answer].tolist() == [[80.5], [100.5]]  # the last call alone counts


def test_a_network_that_is_called_on_the_end_is_shown_the_view_there_too():
    asked = asked_of([[1.0]], [[3.0]], [[5]])
    found = shown.seen_through(recording(jnp.int32(0)), shown.the_answer)
    assert found.sample((), (), jax.random.key(0), asked).tolist() == [[8.5]]


def test_a_model_without_a_chain_is_refused():
    with pytest.raises(ValueError, match="without a chain"):
        shown.seen_through(recording()._replace(noised=None), shown.nothing)


def test_a_row_is_asked_with_the_answers_of_the_row_beside_it():
    items = np.array([1, 2, 3, 4, 5, 6, 7], np.int32)
    histories = Ragged(items, *(np.array(p, np.int32) for p in ([0, 2, 4], [1, 3, 6], [2, 4, 7])))

    def query(rows, index):
        return cut.queries(rows, index, max_len=2)

    split = evaluator.split_of(histories, histories, query)
    placed = shown.beside(split, query, np.array([2, 0, 1]))
    (group,) = placed.groups
    own = placed.alone(placed.rows, np.array([1, 2]))  # a device's rows
    asked = group.query(own, jnp.array([0, 1, -1]))
    assert asked.query.seq.tolist() == [[3, 0], [5, 6], [0, 0]]
    assert asked.of.seq.tolist() == [[1, 0], [3, 0], [0, 0]]
    assert asked.relevant.tolist() == [[2], [4], [0]]


def test_the_noise_of_a_step_is_that_of_the_forward_process():
    levels = forward.levels(np.linspace(1e-4, 0.5, 4))
    x0 = jnp.arange(6.0).reshape(3, 2)
    key, rows = jax.random.key(3), jnp.arange(3)
    found = forward.at_step(forward.tables(levels), key, rows, 100.0 * x0, jnp.int32(2))
    free = forward.at_step(forward.tables(levels), key, rows, 0.0 * x0, jnp.int32(2))
    np.testing.assert_allclose(found - free, levels.signal[2] * 100.0 * x0, rtol=1e-5)
    many = forward.at_step(
        forward.tables(levels), key, jnp.arange(20_000), jnp.zeros((20_000, 1)), jnp.int32(2)
    )
    np.testing.assert_allclose(many.std(), levels.noise[2], rtol=0.03)
    assert isinstance(samplers.ddpm_steps(levels), Steps)
