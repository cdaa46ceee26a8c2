"""Optimizers from settings, with exceptions by parameter path."""

import re
from typing import Any

import jax
import optax

from jaxrec_diff.training.config import Rule, TrainConfig


def path_of(keys: tuple[Any, ...]) -> str:
    """`a/b/kernel` from a key path of `jax.tree_util`."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", key))) for key in keys)


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


def make(config: TrainConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimizer of a run."""
    rate = learning_rate(config, total_steps)
    default = _single(config, rate, 1.0, config.weight_decay)
    chain = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm > 0 else []
    if not config.rules:
        return optax.chain(*chain, default)
    parts = {"default": default}
    for index, rule in enumerate(config.rules):
        decay = config.weight_decay if rule.weight_decay is None else rule.weight_decay
        parts[str(index)] = _single(config, rate, rule.learning_rate, decay)
    by_path = optax.multi_transform(parts, lambda params: labels(config.rules, params))
    return optax.chain(*chain, by_path)


def _single(
    config: TrainConfig, rate: optax.Schedule, factor: float, weight_decay: float
) -> optax.GradientTransformation:
    if factor == 0.0:
        return optax.set_to_zero()

    def scaled(step):
        return factor * rate(step)

    if config.optimizer == "adamw":
        return optax.adamw(scaled, weight_decay=weight_decay)
    return {"adam": optax.adam, "sgd": optax.sgd}[config.optimizer](scaled)
