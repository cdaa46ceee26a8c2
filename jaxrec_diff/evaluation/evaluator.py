"""Ranks a split: queries -> points -> masked top lists -> metrics of every user.

One jitted step a batch holds sampling, scoring, masking, the top list and the metrics; a row's
values leave the device, never its scores. Sums are taken on the host in float64 over rows in their
own order, so a result does not depend on the batch size or on the number of devices.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches.types import Answer, Group, Shared
from jaxrec_diff.evaluation import diagnostics as evaluation_diagnostics
from jaxrec_diff.evaluation import metrics, rank, shares, types
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.evaluation.types import LIST, Evaluation, Split
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import HONEST, Rules
from jaxrec_diff.ops import ragged, streams
from jaxrec_diff.ops.ragged import Ragged

# Inlined: the programs are the same, and their many metrics are traced once for all of them.
_per_user = jax.jit(metrics.per_user, static_argnums=2, inline=True)

Tell = Callable[[int], None]
"""Is told how many more rows are done."""

_Found = TypeVar("_Found")  # an Evaluation, or several


def rules_of(config: EvalConfig, official: Rules) -> Rules:
    """What the settings mean for a system."""
    rules = official if config.protocol == "official" else HONEST
    return rules if config.mask_seen is None else rules._replace(mask_seen=config.mask_seen)


def split_of(
    histories: Ragged,
    rows: Any,
    query: Callable[[Any, jax.Array], Any],
    rules: Rules = HONEST,
    groups: tuple[Group, ...] = (),
    *,
    alone: Callable[[Any, np.ndarray], Any] = ragged.alone,
) -> Split:
    """A split to be judged; `rules.multiple_of` drops its last rows.

    Args:
      histories: whole, with their answers.
      rows: arrays that `query` cuts from (`Batcher.splits`).
      query: (rows, index) -> query, `Batcher.query`.
      rules: what may be recommended.
      groups: rows that are cut alike, each with its own `query` (`Batcher.groups`); by default all
        are cut by `query`.
      alone: (rows, index) -> what `query` cuts these rows from, `Batcher.alone`.
    """
    count = len(histories.start) // rules.multiple_of * rules.multiple_of
    if count == 0:
        raise ValueError(
            f"a split of {len(histories.start)} rows has no full batch of {rules.multiple_of}; "
            "use the honest protocol"
        )
    kept = Ragged(histories.items, *(part[:count] for part in histories[1:4]))
    seen = int(np.max(kept.end - kept.start)) if rules.mask_seen else 0
    relevant = int(np.max(kept.stop - kept.end))
    groups = groups or (Group(np.arange(count, dtype=np.int32), query),)
    groups = tuple(group._replace(rows=group.rows[group.rows < count]) for group in groups)
    groups = tuple(group for group in groups if len(group.rows))
    return Split(kept, rows, alone, groups, seen, relevant, count)


def evaluator(
    model: Model,
    split: Split,
    mesh: Mesh,
    config: EvalConfig,
    rules: Rules,
    train_counts: np.ndarray,
    *,
    num_users: int = 0,
    diagnose: bool = True,
    tell: Tell | None = None,
) -> Callable[[Any, Any, jax.Array], Evaluation]:
    """A function (params, state, key) -> Evaluation, compiled once.

    Args:
      model: what a `build` made.
      split: from `split_of`.
      mesh: devices; a batch is sharded over them.
      config: settings.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_users: users in all, for rules under which those without an answer count.
      diagnose: also look at the lists and at the variants, which costs a second ranking.
      tell: is told how many more rows are done, a batch late, while others are under way.
    """
    identity = {"": np.arange(split.num_rows, dtype=np.int32)}
    run = _evaluator(
        model, split.groups, split.rows, {"": split}, identity, {"": rules}, mesh, config,
        train_counts, num_users=num_users, diagnose=diagnose, tell=tell,
    )  # fmt: skip
    return lambda params, state, key: run(params, state, key)[""]


def evaluate_splits(
    model: Model,
    splits: dict[str, Split],
    shared: Shared | None,
    query: Callable[[Any, jax.Array], Any],
    mesh: Mesh,
    config: EvalConfig,
    rules: Rules,
    train_counts: np.ndarray,
    *,
    num_users: int = 0,
    diagnose: bool = True,
) -> Callable[[Any, Any, jax.Array], dict[str, Evaluation]]:
    """`evaluator` for several splits at a time, by name.

    Where a user's query is the same in every split (`shared`) and so is its answer, a user is
    sampled and scored once and masked and ranked for each split: where nothing is drawn
    (`model.deterministic`), and where a user has the same row in every split, which keys what is
    drawn. Otherwise each split is sampled by itself; the figures are the same.

    Args:
      model: what a `build` made.
      splits: from `split_of`, all under the same rules.
      shared: `Batcher.shared`.
      query: `Batcher.query`.
      mesh: devices.
      config: settings.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_users: users in all, for rules under which those without an answer count.
      diagnose: also look at the lists and at the variants.
    """
    options: Any = {"num_users": num_users, "diagnose": diagnose}
    apart = {
        name: evaluator(model, split, mesh, config, rules, train_counts, **options)
        for name, split in splits.items()
    }

    def separately(params, state, key):
        return {name: run(params, state, key) for name, run in apart.items()}

    if shared is None or not (model.deterministic or _same_rows(shared)):
        return separately
    # `split_of` may have dropped the last rows of a split
    place = {
        name: np.where(shared.place[name] < split.num_rows, shared.place[name], -1)
        for name, split in splits.items()
    }
    asked = np.flatnonzero(np.any(np.stack(list(place.values())) >= 0, axis=0))
    group = Group(asked.astype(np.int32), query)
    all_rules = dict.fromkeys(splits, rules)
    return _evaluator(
        model, (group,), shared.rows, splits, place, all_rules, mesh, config, train_counts,
        **options,
    )  # fmt: skip


def _same_rows(shared: Shared) -> bool:
    """Whether every user has one and the same row wherever it is asked about."""
    return all(((own < 0) | (own == np.arange(len(own)))).all() for own in shared.place.values())


def under_rules(
    model: Model,
    splits: dict[str, Split],
    rules: dict[str, Rules],
    mesh: Mesh,
    config: EvalConfig,
    train_counts: np.ndarray,
    *,
    num_users: int = 0,
    diagnose: bool = True,
) -> Callable[[Any, Any, jax.Array], dict[str, Evaluation]]:
    """`evaluator` of one split under several rules at a time, by name.

    A row is sampled once and masked and ranked under each of the rules.

    Args:
      model: what a `build` made.
      splits: the same rows, from `split_of` under each of the rules.
      rules: what may be recommended.
      mesh: devices.
      config: settings.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_users: users in all, for rules under which those without an answer count.
      diagnose: also look at the lists and at the variants.
    """
    widest = max(splits.values(), key=lambda split: split.num_rows)
    row = np.arange(widest.num_rows, dtype=np.int32)
    place = {name: np.where(row < split.num_rows, row, -1) for name, split in splits.items()}
    return _evaluator(
        model, widest.groups, widest.rows, splits, place, rules, mesh, config, train_counts,
        num_users=num_users, diagnose=diagnose,
    )  # fmt: skip


class _Pass(NamedTuple):
    """What is static about one pass over queries: who is judged, on what, under which rules."""

    model: Model
    splits: dict[str, Split]
    rules: dict[str, Rules]  # of each split
    config: EvalConfig
    train_counts: np.ndarray
    num_users: int
    diagnose: bool


def _evaluator(
    model: Model,
    groups: tuple[Group, ...],
    rows: Any,
    splits: dict[str, Split],
    place: dict[str, np.ndarray],
    rules: dict[str, Rules],
    mesh: Mesh,
    config: EvalConfig,
    train_counts: np.ndarray,
    *,
    num_users: int,
    diagnose: bool,
    tell: Tell | None = None,
) -> Callable[[Any, Any, jax.Array], dict[str, Evaluation]]:
    """One pass over queries cut from `rows`, ranked for the row of each split at `place`."""
    static = _Pass(model, splits, rules, config, train_counts, num_users, diagnose)
    alone = next(iter(splits.values())).alone
    dealt = shares.make(rows, alone, groups, splits, place, config.batch_size, mesh)

    def batch(cut, params, state, key, *given):
        query, answers = cut(*given)
        drawn = rank.sample(model, params, state, key, query)
        points_of = model.variants if diagnose else {}
        found = {name: points(params, state, query) for name, points in points_of.items()}
        variants = {name: drawn._replace(points=points) for name, points in found.items()}
        return {
            name: _judged(static, rules[name], drawn, variants, answer)
            for name, answer in answers.items()
        }

    everywhere = NamedSharding(mesh, P())
    programs = [
        jax.jit(partial(batch, shares.cutter(each.query, splits, mesh)), out_shardings=everywhere)
        for each in groups
    ]
    ready: list[Callable] = []  # of each group

    def run(params, state, key):
        parts: list[Any] = []
        indices: list[np.ndarray] = []
        state = rank.precompute(model, params, state)
        for number, batches in enumerate(dealt.batches):
            for index, at in batches:
                given = params, state, key, dealt.arrays, index, at
                with jax.set_mesh(mesh):
                    if number == len(ready):
                        ready.append(layout.compiled(programs[number], *given))
                    parts.append(ready[number](*given))
                indices.append(index)
                if tell is not None and len(parts) > 1:
                    jax.block_until_ready(parts[-2])
                    tell(int((indices[-2] >= 0).sum()))
        parts, index = layout.whole(parts), np.concatenate(indices)
        if tell is not None:
            tell(int((indices[-1] >= 0).sum()))
        table = rank.item_rows(layout.whole(model.head(params, state))) if diagnose else None
        out = {}
        for name in splits:
            row = np.where(index >= 0, place[name][np.maximum(index, 0)], -1)
            out[name] = _gathered(static, name, row, [part[name] for part in parts], table)
        return out

    return run


def _judged(
    static: _Pass,
    rules: Rules,
    drawn: rank.Drawn,
    variants: dict[str, rank.Drawn],
    answer: Answer,
) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
    """Values of every row of a batch, by reading ("" is the model's own), and sums over lists."""
    config, trained = static.config, static.train_counts > 0
    # A head may have rows beyond the catalogue (a released script ranks its padding row).
    known = jnp.asarray(np.pad(trained, (0, rank.num_items(drawn.head) - len(trained))))
    everything = jnp.ones_like(known)
    allowed = known if rules.trained_only else everything

    def ranked(drawn, allowed):
        seen = answer.seen if rules.mask_seen else None
        top = rank.top(drawn, k=max(*config.ks, LIST) + 1, seen=seen, allowed=allowed)
        return top, _per_user(top, answer.relevant, config.ks)

    top, values = ranked(drawn, allowed)
    out = {"": values}
    if not static.diagnose:
        return out, {}
    if not trained.all():
        other = everything if rules.trained_only else known
        name = "all_items" if rules.trained_only else "trained_items"
        out[name] = ranked(drawn, other)[1]
    out |= {name: ranked(variant, allowed)[1] for name, variant in variants.items()}
    return out, evaluation_diagnostics.sums(top, answer, known)


def _gathered(
    static: _Pass, name: str, row: np.ndarray, parts: list[tuple], table: np.ndarray | None
) -> Evaluation:
    """The figures of a split from its batches; `row` i32 is each entry's row, -1 for none."""
    split = static.splits[name]
    values, sums = zip(*parts, strict=True)
    kept = np.flatnonzero(row >= 0)
    kept = kept[np.argsort(row[kept])]
    per_user = jax.tree.map(lambda *parts: np.concatenate(parts)[kept], *values)
    missing = types.missing_users(static.rules[name], static.num_users, split.num_rows)
    diagnostics = {other: types.means(per_user[other], missing) for other in per_user if other}
    if static.diagnose:
        summed = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *sums)
        diagnostics |= evaluation_diagnostics.diagnostics(
            summed, table, static.train_counts, split.num_rows
        )
    return Evaluation(types.means(per_user[""], missing), per_user[""], diagnostics, missing)


def over_seeds(
    run: Callable[[Any, Any, jax.Array], _Found],
    params: Any,
    state: Any,
    seed: int,
    seeds: int,
) -> list[_Found]:
    """Evaluations under `seeds` draws of the sampler's noise, a stream of their own."""
    return [run(params, state, streams.draw(seed, number)) for number in range(seeds)]


def mean_over_seeds(evaluations: list[Evaluation]) -> Evaluation:
    """Means of metrics and of every user's values; the diagnostics are the first draw's."""
    values = {
        name: np.stack([e.per_user[name] for e in evaluations]).mean(axis=0, dtype=np.float64)
        for name in evaluations[0].per_user
    }
    _, _, diagnostics, missing = evaluations[0]
    return Evaluation(types.means(values, missing), values, diagnostics, missing)


def spread(evaluations: list[Evaluation]) -> dict[str, float]:
    """Standard deviation of each metric over draws of the sampler's noise."""
    ddof = min(1, len(evaluations) - 1)
    return {
        name: float(np.std([e.metrics[name] for e in evaluations], ddof=ddof))
        for name in evaluations[0].metrics
    }
