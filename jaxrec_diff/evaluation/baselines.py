"""Recommenders without a model that stand beside every result, tuned where they have settings."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff.evaluation import item_to_item, metrics, popularity, types
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.types import LIST
from jaxrec_diff.models.protocols import Rules
from jaxrec_diff.ops import graph
from jaxrec_diff.ops.ragged import Ragged

_TUNING_ROWS = 8192


class Tuned(NamedTuple):
    """A control with the setting of its grid that does best on validation."""

    setting: dict[str, float]
    valid: float  # its validation metric
    score: item_to_item.Score


def tune_controls(
    rows: Ragged,
    inputs: Ragged,
    valid: Ragged,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
) -> dict[str, Tuned]:
    """The controls of `config.controls`, tuned on at most `_TUNING_ROWS` rows of validation.

    Args:
      rows: what they learn from, row by row `items[start:end]`.
      inputs: the items that each row of `valid` is scored by.
      valid: histories and answers.
      train_counts: i64[I], how often item j + 1 occurs in training.
      config: settings.
      rules: what may be recommended.
    """
    num_items = len(train_counts)
    picked = np.arange(0, len(valid.start), -(-len(valid.start) // _TUNING_ROWS))
    inputs, valid = (
        Ragged(part.items, *(column[picked] for column in part[1:4])) for part in (inputs, valid)
    )
    out: dict[str, Tuned] = {}
    if not config.controls:
        return out
    sets = graph.item_sets(rows, num_items)
    for name in config.controls:
        item_to_item.check(name, num_items)
        for setting, score in item_to_item.candidates(name, sets, num_items):
            top = _item_lists(score, inputs, valid, train_counts, config, rules)
            found = types.means(_per_user(top, valid, config))[config.metric]
            if name not in out or found > out[name].valid:
                out[name] = Tuned(setting, found, score)
    return out


def controls(
    train: Ragged,
    queries: Ragged,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
    num_users: int = 0,
    tuned: dict[str, Tuned] | None = None,
    inputs: Ragged | None = None,
) -> dict[str, dict[str, float]]:
    """Popularity, repeat-last-items and first-order transitions under the same rules.

    Args:
      train: training examples.
      queries: histories and answers.
      train_counts: i64[I], how often item j + 1 occurs in training.
      config: settings.
      rules: what may be recommended.
      num_users: users in all, for rules that count those without a row.
      tuned: further controls, from `tune_controls`; their setting stands beside their metrics.
      inputs: the items that they score each row of `queries` by; its history by default.
    """
    found = controls_per_user(train, queries, train_counts, config, rules, tuned, inputs)
    return control_means(found, config, rules, num_users, tuned)


def controls_per_user(
    train: Ragged,
    queries: Ragged,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
    tuned: dict[str, Tuned] | None = None,
    inputs: Ragged | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Every metric of every row, f32[N] each, of what `controls` takes the means of."""
    rows = len(queries.start) // rules.multiple_of * rules.multiple_of
    kept = Ragged(queries.items, *(part[:rows] for part in queries[1:4]))
    scored_by = queries if inputs is None else inputs
    scored_by = Ragged(scored_by.items, *(part[:rows] for part in scored_by[1:4]))
    allowed = train_counts > 0 if rules.trained_only else None
    tops = popularity.controls(
        train,
        kept,
        train_counts,
        k=max(*config.ks, LIST) + 1,
        mask_seen=rules.mask_seen,
        allowed=allowed,
        inputs=scored_by,
    )
    out = {name: _per_user(top, kept, config) for name, top in tops.items()}
    for name, control in (tuned or {}).items():
        top = _item_lists(control.score, scored_by, kept, train_counts, config, rules)
        out[name] = _per_user(top, kept, config)
    return out


def control_means(
    per_user: dict[str, dict[str, np.ndarray]],
    config: EvalConfig,
    rules: Rules,
    num_users: int = 0,
    tuned: dict[str, Tuned] | None = None,
) -> dict[str, dict[str, float]]:
    """Means of `controls_per_user`, and the setting of each control that has one."""
    out = {}
    for name, values in per_user.items():
        missing = types.missing_users(rules, num_users, len(next(iter(values.values()))))
        out[name] = types.means(values, missing)
        if tuned and name in tuned:
            out[name] |= tuned[name].setting | {f"valid_{config.metric}": tuned[name].valid}
    return out


def _item_lists(score, inputs, queries, train_counts, config: EvalConfig, rules: Rules):
    return item_to_item.lists(
        score,
        inputs,
        queries,
        num_items=len(train_counts),
        k=max(*config.ks, LIST) + 1,
        mask_seen=rules.mask_seen,
        allowed=train_counts > 0 if rules.trained_only else None,
    )


_jitted_per_user = jax.jit(metrics.per_user, static_argnums=2)


def _per_user(top: Any, queries: Ragged, config: EvalConfig) -> dict[str, np.ndarray]:
    """Every metric of every row, f32[N] each, from lists on the host."""
    return jax.device_get(_jitted_per_user(top, _relevant(queries), config.ks))


def _relevant(slices: Ragged) -> np.ndarray:
    """i32[N, R] the answers of every row, padded with 0."""
    width = int(np.max(slices.stop - slices.end))
    place = slices.end[:, None] + np.arange(width)
    inside = place < slices.stop[:, None]
    return np.where(inside, slices.items[np.where(inside, place, 0)], 0).astype(np.int32)
