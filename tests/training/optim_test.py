"""Exceptions by parameter path."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrec_diff.models.contract import Thaw
from jaxrec_diff.training import optim
from jaxrec_diff.training.config import Rule, TrainConfig

PARAMS = {"items": jnp.ones(2), "net": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}


def test_rules_scale_and_freeze():
    rules = (Rule(pattern="items", learning_rate=0.0), Rule(pattern="bias$", learning_rate=0.5))
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, rules=rules)
    optimizer = optim.make(config, 10)
    updates, _ = optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)
    np.testing.assert_allclose(updates["items"], 0.0)
    np.testing.assert_allclose(updates["net"]["bias"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(updates["net"]["kernel"], -0.1, rtol=1e-6)


def test_what_a_model_freezes_is_neither_moved_nor_kept():
    config = TrainConfig(optimizer="adamw", learning_rate=0.1, weight_decay=0.5, clip_norm=1.0)
    optimizer, plain = optim.make(config, 10, frozen=("items",)), optim.make(config, 10)
    grads = PARAMS | {"items": jnp.full(2, 100.0)}
    state = optimizer.init(PARAMS)
    assert "items" not in str(jax.tree_util.tree_leaves_with_path(state))
    updates, _ = optimizer.update(grads, state, PARAMS)
    np.testing.assert_array_equal(updates["items"], 0.0)
    # nor does its gradient count in the norm that others are clipped to
    rest = {"net": PARAMS["net"]}
    alone, _ = plain.update(rest, plain.init(rest), rest)
    jax.tree.map(np.testing.assert_array_equal, updates["net"], alone["net"])


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_what_thaws_later_is_trained_as_if_it_began_then(clip_norm):
    # Three updates in which the table stands still, then two of all; the rate falls all the while.
    config = TrainConfig(
        optimizer="adamw", learning_rate=0.1, weight_decay=0.3, clip_norm=clip_norm,
        schedule="linear", num_epochs=5, rules=(Rule(pattern="bias", learning_rate=0.5),),
    )  # fmt: skip
    optimizer = optim.make(config, 5, thawed={"items": Thaw(3)})
    alone = optim.make(config, 5)
    params, state = PARAMS, optimizer.init(PARAMS)
    rest = {"net": PARAMS["net"]}
    of_rest = alone.init(rest)
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        np.testing.assert_array_equal(updates["items"], 0.0)
        expected, of_rest = alone.update(rest, of_rest, rest)
        jax.tree.map(np.testing.assert_array_equal, updates["net"], expected["net"])
        params, rest = optax.apply_updates(params, updates), optax.apply_updates(rest, expected)
    updates, state = optimizer.update(params, state, params)
    # the first step of an Adam is its rate, here that of the fourth update, and the decay beside it
    np.testing.assert_allclose(updates["items"], -0.1 * 0.4 * (1.0 + 0.3), rtol=1e-5)


def test_what_is_kept_does_not_depend_on_how_long_a_training_is():
    # a checkpoint is read without it
    shapes = [
        jax.eval_shape(optim.make(TrainConfig(), total, thawed={"items": Thaw(3)}).init, PARAMS)
        for total in (1, 5000)
    ]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])


def test_decay_that_is_added_to_gradients():
    config = TrainConfig(optimizer="adam_l2", learning_rate=0.1, weight_decay=0.5)
    optimizer, adam = optim.make(config, 5), optax.adam(0.1)
    params, grads = {"w": jnp.array([2.0, -1.0])}, {"w": jnp.array([0.3, 0.2])}
    state, other = optimizer.init(params), adam.init(params)
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
        added = {"w": grads["w"] + 0.5 * params["w"]}
        expected, other = adam.update(added, other, params)
        np.testing.assert_array_equal(updates["w"], expected["w"])
        params = optax.apply_updates(params, updates)


def test_a_pattern_without_parameters_is_refused():
    config = TrainConfig(rules=(Rule(pattern="itms"),))
    with pytest.raises(ValueError, match="itms.*items"):
        optim.make(config, 10).init(PARAMS)


def test_warm_up_and_decay():
    rate = optim.learning_rate(
        TrainConfig(learning_rate=1.0, warmup_steps=4, schedule="linear"), 12
    )
    np.testing.assert_allclose([rate(s) for s in (0, 2, 4, 8, 12)], [0, 0.5, 1, 0.5, 0], atol=1e-6)


def test_steps_fall_after_whole_epochs():
    # 30 updates are 6 epochs of 5: a fall after every 2 epochs
    config = TrainConfig(
        learning_rate=1.0, schedule="step", decay_epochs=2, decay_factor=0.1, num_epochs=6
    )
    rate = optim.learning_rate(config, 30)
    got = [rate(s) for s in (0, 9, 10, 19, 20, 29)]
    np.testing.assert_allclose(got, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)
