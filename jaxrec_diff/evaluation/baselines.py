"""Recommenders without a model that stand beside every result, tuned where they have settings."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff.classics import grids, scores
from jaxrec_diff.evaluation import metrics, popularity, topk, types
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.types import LIST
from jaxrec_diff.models.protocols import Rules
from jaxrec_diff.ops import graph, ragged
from jaxrec_diff.ops.ragged import Ragged

_TUNING_ROWS = 8192
_NEWEST = 5000  # items of a row that classics learn from: they cost its length squared


class Tuned(NamedTuple):
    """A baseline with the setting of its grid that does best on validation."""

    setting: grids.Setting
    valid: float  # its validation metric
    score: scores.Score
    trials: int = 1
    seconds: float = 0.0
    at_edge: tuple[str, ...] = ()  # axes beyond whose border a better setting may lie


def tune(
    rows: Ragged,
    inputs: Ragged,
    valid: Ragged,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
) -> dict[str, Tuned]:
    """The baselines of `config.controls`, tuned on at most `_TUNING_ROWS` rows of validation.

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
    inputs, valid = ragged.pick(inputs, picked), ragged.pick(valid, picked)
    out: dict[str, Tuned] = {}
    if not config.controls:
        return out
    newest = rows._replace(start=np.maximum(rows.start, rows.end - _NEWEST))
    sets = graph.item_sets(newest, num_items)
    better = metrics.sign(config.metric)
    for name in config.controls:
        grids.check(name, num_items)
        best, most, trials, begun = None, -np.inf, 0, time.monotonic()
        for candidate in grids.candidates(name, sets, num_items, config.control_trials):
            trials += 1
            # the weights of one setting are gone before those of the next are made
            top = _item_lists(candidate.fit(), inputs, valid, train_counts, config, rules)
            found = types.means(_at_ks(top, valid, config))[config.metric]
            if best is None or better * found > most:
                best, most = candidate, better * found
            if 0 < 60.0 * config.control_minutes <= time.monotonic() - begun:
                break
        assert best is not None  # a grid has settings
        out[name] = Tuned(
            best.setting,
            better * most,
            best.fit(),
            trials,
            time.monotonic() - begun,
            tuple(grids.at_edge(name, best.setting)),
        )
    return out


def per_user(
    train: Ragged,
    queries: Ragged,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
    tuned: dict[str, Tuned] | None = None,
    inputs: Ragged | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Popularity, repeat-last-items and first-order transitions under a model's rules.

    Args:
      train: training examples.
      queries: histories and answers.
      train_counts: i64[I], how often item j + 1 occurs in training.
      config: settings.
      rules: what may be recommended.
      tuned: further baselines, from `tune`.
      inputs: the items that they score each row of `queries` by; its history by default.

    Returns:
      Every metric of every row, f32[N] each, by name of the baseline.
    """
    rows = len(queries.start) // rules.multiple_of * rules.multiple_of
    kept = ragged.pick(queries, slice(rows))
    scored_by = kept if inputs is None else ragged.pick(inputs, slice(rows))
    allowed = train_counts > 0 if rules.trained_only else None
    tops = popularity.lists(
        train,
        kept,
        train_counts,
        k=max(*config.ks, LIST) + 1,
        mask_seen=rules.mask_seen,
        allowed=allowed,
        inputs=scored_by,
    )
    out = {name: _at_ks(top, kept, config) for name, top in tops.items()}
    for name, baseline in (tuned or {}).items():
        top = _item_lists(baseline.score, scored_by, kept, train_counts, config, rules)
        out[name] = _at_ks(top, kept, config)
    return out


def means(
    found: dict[str, dict[str, np.ndarray]],
    config: EvalConfig,
    rules: Rules,
    num_users: int = 0,
    tuned: dict[str, Tuned] | None = None,
) -> dict[str, dict[str, Any]]:
    """Means of `per_user`, and the setting of each baseline that has one.

    Args:
      found: from `per_user`.
      config: settings.
      rules: what may be recommended.
      num_users: users in all, for rules that count those without a row.
      tuned: further baselines, from `tune`; their setting and the trials it took stand beside
        their metrics.
    """
    out: dict[str, dict[str, Any]] = {}
    for name, values in found.items():
        missing = types.missing_users(rules, num_users, len(next(iter(values.values()))))
        out[name] = types.means(values, missing)
        if tuned and name in tuned:
            chosen = tuned[name]
            out[name] |= chosen.setting | {f"valid_{config.metric}": chosen.valid}
            out[name] |= {"trials": chosen.trials, "at_edge": list(chosen.at_edge)}
    return out


def _item_lists(score, inputs, queries, train_counts, config: EvalConfig, rules: Rules):
    return topk.of_scores(
        score,
        inputs,
        queries,
        num_items=len(train_counts),
        k=max(*config.ks, LIST) + 1,
        mask_seen=rules.mask_seen,
        allowed=train_counts > 0 if rules.trained_only else None,
    )


_jitted = jax.jit(metrics.per_user, static_argnums=2)


def _at_ks(top: Any, queries: Ragged, config: EvalConfig) -> dict[str, np.ndarray]:
    """Every metric of every row, f32[N] each, from lists on the host."""
    return jax.device_get(_jitted(top, _relevant(queries), config.ks))


def _relevant(rows: Ragged) -> np.ndarray:
    """i32[N, R] the answers of every row, padded with 0."""
    width = int(np.max(rows.stop - rows.end))
    place = rows.end[:, None] + np.arange(width)
    inside = place < rows.stop[:, None]
    return np.where(inside, rows.items[np.where(inside, place, 0)], 0).astype(np.int32)
