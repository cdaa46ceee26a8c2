"""Optimizers from settings, with exceptions by parameter path."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrec_diff.models.contract import Compact, Model, Thaw
from jaxrec_diff.training.config import Rule, TrainConfig


def path_of(keys: tuple[Any, ...]) -> str:
    """`a/b/kernel` from a key path of `jax.tree_util`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in keys)


def owners(params: Any) -> Callable[[tuple[Any, ...]], str]:
    """Key path of a leaf -> path of the parameter that it is, or that an optimizer keeps it for.

    What an optimizer keeps of a parameter lies in a tree of the parameters' shape, so that its path
    ends in the parameter's; a counter, say, is nobody's, which is "".
    """
    paths = {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)}

    def owner(keys):
        ends = (path_of(keys[place:]) for place in range(len(keys)))
        return next((end for end in ends if end in paths), "")

    return owner


def labels(rules: tuple[Rule, ...], params: Any) -> Any:
    """Index of the first rule that matches each leaf's path, as text; "default" where none does.

    Raises:
      ValueError: if a pattern matches no parameter.
    """
    matched: set[int] = set()

    def label(keys, leaf):
        del leaf
        path = path_of(keys)
        for index, rule in enumerate(rules):
            if re.search(rule.pattern, path):
                matched.add(index)
                return str(index)
        return "default"

    tree = jax.tree_util.tree_map_with_path(label, params)
    for index, rule in enumerate(rules):
        if index not in matched:
            paths = [path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params)]
            raise ValueError(
                f"train.rules pattern {rule.pattern!r} matches no parameter; "
                f"the paths are {', '.join(paths)}"
            )
    return tree


def learning_rate(config: TrainConfig, total_steps: int) -> optax.Schedule:
    """The learning rate by update: a warm-up, then as `config.schedule` says."""
    peak, rest = config.learning_rate, max(total_steps - config.warmup_steps, 1)
    per_epoch = total_steps / config.num_epochs
    after = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "step": optax.exponential_decay(
            peak, max(config.decay_epochs * per_epoch, 1), config.decay_factor, staircase=True
        ),
    }[config.schedule]
    if config.warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def of_model(config: TrainConfig, total_steps: int, model: Model) -> optax.GradientTransformation:
    """`make`, with what a model says of its parameters."""
    return make(config, total_steps, model.compact, model.frozen, model.thawed)


def make(
    config: TrainConfig,
    total_steps: int,
    compact: Compact | None = None,
    frozen: tuple[str, ...] = (),
    thawed: Mapping[str, Thaw] = MappingProxyType({}),
) -> optax.GradientTransformation:
    """The optimizer of a run.

    Args:
      config: settings.
      total_steps: updates of a training that is not stopped early.
      compact: of the model; its tables are what `row_adagrad` is for, Adam updates the rest.
      frozen: of the model; parameters that are not moved, and of which nothing is kept.
      thawed: of the model; parameters that are trained from a later epoch on.

    `lazy_adam` is `adam`, of which an update sees the rows that its batch reads (`training.rows`).
    It differs from Adam on the whole table in rows that a batch does not read: Adam decays their
    moments and moves them on by what is left of the first one; here they stay as they are. The bias
    correction is global: it counts the updates of the run and not those of a row, as Adam does.
    Where every update reads every row the two are one.
    """
    if frozen:
        moving = make(config, total_steps, compact, thawed=thawed)
        return optax.multi_transform(
            {"moving": moving, "frozen": optax.set_to_zero()},
            lambda params: {name: "frozen" if name in frozen else "moving" for name in params},
        )
    rate = learning_rate(config, total_steps)
    tables = tuple(table.name for table in compact.tables) if compact else ()
    per_epoch = total_steps // config.num_epochs
    first = {name: thaw.epoch * per_epoch for name, thaw in thawed.items()}
    chain = [still(first)] if first else []
    if config.clip_norm > 0:
        chain.append(optax.clip_by_global_norm(config.clip_norm))
    if not config.rules and not first:
        return optax.chain(*chain, _single(config, rate, 1.0, config.weight_decay, tables))
    late = {name: thaw.epoch for name, thaw in thawed.items() if not thaw.decays}
    factors = {"default": (1.0, config.weight_decay)}
    for index, rule in enumerate(config.rules):
        decay = config.weight_decay if rule.weight_decay is None else rule.weight_decay
        factors[str(index)] = rule.learning_rate, decay
    parts = {k: _single(config, rate, *factor, tables) for k, factor in factors.items()}
    for epoch in sorted(set(late.values())):
        start = epoch * per_epoch
        later = partial(_later, rate, start)
        for name, factor in factors.items():
            parts[_from(name, epoch)] = begun(_single(config, later, *factor, tables), start)

    def kinds(params):
        plain = labels(config.rules, params)
        for name in late.keys() & params.keys():
            plain[name] = jax.tree.map(partial(_from, epoch=late[name]), plain[name])
        return plain

    return optax.chain(*chain, optax.multi_transform(parts, kinds))


def _later(rate: optax.Schedule, start: int, step: Any) -> Any:
    return rate(step + start)


def _from(name: str, epoch: int) -> str:
    return f"{name} from epoch {epoch}"


def still(first: Mapping[str, int]) -> optax.GradientTransformation:
    """No gradient for parameters at the top before an update each, 0-based."""

    def zeroed(grads, count, params=None):
        del params
        held = {
            name: jax.tree.map(lambda g, at=at: jnp.where(count < at, 0, g), grads[name])
            for name, at in first.items()
            if name in grads
        }
        return grads | held, count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), zeroed)


class Begun(NamedTuple):
    """What an optimizer that begins late keeps."""

    count: Any  # i32[], updates of the run
    inner: Any  # of the optimizer, as at its start until it begins


def begun(inner: optax.GradientTransformation, start: int) -> optax.GradientTransformation:
    """An optimizer whose first update is number `start` of the run, 0-based; nothing moves before,
    and no moments are made.

    >>> tool, grads = begun(optax.sgd(1.0), 1), jnp.array([2.0])
    >>> first, state = tool.update(grads, tool.init(grads))
    >>> first.tolist(), tool.update(grads, state)[0].tolist()
    ([0.0], [-2.0])
    """

    def update(grads, state, params=None):
        moved, after = inner.update(grads, state.inner, params)
        on = state.count >= start
        moved = jax.tree.map(lambda update: jnp.where(on, update, jnp.zeros_like(update)), moved)
        kept = jax.tree.map(lambda new, old: jnp.where(on, new, old), after, state.inner)
        return moved, Begun(state.count + 1, kept)

    return optax.GradientTransformation(
        lambda params: Begun(jnp.zeros((), jnp.int32), inner.init(params)), update
    )


class RowAdagradState(NamedTuple):
    """What row-wise Adagrad keeps: one number a row."""

    sums: Any  # of each parameter [R, ...], float[R]


def row_adagrad(
    learning_rate: optax.ScalarOrSchedule, *, epsilon: float = 1e-8
) -> optax.GradientTransformation:
    """Adagrad with one accumulator a row, for tables of embeddings.

        G_i <- G_i + mean_j g_ij^2,   w_ij <- w_ij - rate g_ij / (sqrt(G_i) + epsilon)

    The row-wise AdaGrad of Mudigere et al. 2021 (arXiv:2104.05158); Adagrad (Duchi et al. 2011) has
    a G_ij of its own for every number. A row without a gradient stays as it is, so an update of the
    rows that a batch reads is the update of the whole table.
    """

    def init(params):
        return RowAdagradState(jax.tree.map(lambda leaf: jnp.zeros(len(leaf), leaf.dtype), params))

    def scale(grads, state, params=None):
        del params

        def per_row(leaf, like):
            return leaf.reshape(leaf.shape + (1,) * (like.ndim - 1))

        sums = jax.tree.map(
            lambda total, g: total + jnp.square(g).mean(axis=tuple(range(1, g.ndim))),
            state.sums,
            grads,
        )
        scaled = jax.tree.map(
            lambda g, total: g / (jnp.sqrt(per_row(total, g)) + epsilon), grads, sums
        )
        return scaled, RowAdagradState(sums)

    return optax.chain(
        optax.GradientTransformation(init, scale), optax.scale_by_learning_rate(learning_rate)
    )


def _single(
    config: TrainConfig,
    rate: optax.Schedule,
    factor: float,
    weight_decay: float,
    tables: tuple[str, ...],
) -> optax.GradientTransformation:
    if factor == 0.0:
        return optax.set_to_zero()

    def scaled(step):
        return factor * rate(step)

    if config.optimizer == "adamw":
        return optax.adamw(scaled, weight_decay=weight_decay)
    if config.optimizer == "adam_l2":
        return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(scaled))
    if config.optimizer == "row_adagrad":
        return optax.multi_transform(
            {"table": row_adagrad(scaled), "other": optax.adam(scaled)},
            lambda params: jax.tree_util.tree_map_with_path(
                lambda keys, _: "table" if path_of(keys) in tables else "other", params
            ),
        )
    kinds = {"adam": optax.adam, "lazy_adam": optax.adam, "sgd": optax.sgd}
    return kinds[config.optimizer](scaled)
