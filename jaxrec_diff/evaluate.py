"""Ranks a split: queries -> points -> masked top lists -> metrics of every user.

One jitted step a batch holds sampling, scoring, masking, the top list and the metrics; a row's
values leave the device, never its scores. Sums are taken on the host in float64 over rows in their
own order, so a result does not depend on the batch size or on the number of devices.
"""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import batches, graph, item_weights, metrics, ranking, validation
from jaxrec_diff import controls as control_lists
from jaxrec_diff.batches import Group, Shared, Slices
from jaxrec_diff.models.base import HONEST, Model, Protocol, Rules

_LIST = 20  # length of the lists that coverage and the other diagnostics look at
_TUNING_ROWS = 8192


LOSS = "loss"  # the one metric that is lower for the better
_LOSS_ROWS = 4096  # held-out rows are repeated up to so many: a row has one step of the diffusion


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a model is judged."""

    protocol: Protocol = "honest"
    """honest: items of the history and items never trained are no candidates, every row counts;
    official: as the system's released script does it."""
    metric: str = "hr@20"
    """Validation metric that picks the checkpoint. loss: the objective of training on held-out rows
    under draws that stay the same, lower is better; of models that generate items."""
    ks: tuple[int, ...] = (5, 10, 20, 50)
    """Cut-offs."""
    batch_size: int = 1024
    """Rows ranked at once; changes no number, but DiQDiff's under the official codes."""
    mask_seen: bool | None = None
    """Overrides the protocol: whether items of the history are candidates."""
    seeds: int = 1
    """Draws of the sampler's noise; figures are means over them."""
    track_test: bool = False
    """Log test metrics at every evaluation (never used to pick a checkpoint)."""
    candidates: int = 0
    """Rank each answer among so many drawn items too (100 in SASRec's protocol), and report users
    by the length of their history; 0 does neither. One answer a user only."""
    controls: tuple[Literal["ease", "item_knn"], ...] = ()
    """Further controls at the end of a run, tuned on validation: EASE, nearest neighbours."""

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise ValueError(f"eval.ks must be positive cut-offs such as 5,10,20, got {self.ks}")
        validation.at_least("eval.batch-size", self.batch_size, 1)
        validation.at_least("eval.seeds", self.seeds, 1)
        validation.at_least("eval.candidates", self.candidates, 0)
        known = [f"{name}@{k}" for name in metrics.NAMES for k in self.ks]
        if self.metric not in (LOSS, *known):
            near = difflib.get_close_matches(self.metric, known, 1, 0.0)[0]
            raise ValueError(f"eval.metric={self.metric!r} is not computed; did you mean {near!r}?")


class Evaluation(NamedTuple):
    """The figures of one split."""

    metrics: dict[str, float]
    per_user: dict[str, np.ndarray]  # f32[N] each
    diagnostics: dict[str, Any]
    missing: int = 0  # users without a row, who count with zeros


class Split(NamedTuple):
    """A split on the device and what is static about it."""

    slices: Slices
    rows: Any  # what queries are cut from
    groups: tuple[Group, ...]  # together all rows, each with (rows, index i32[B]) -> query
    max_seen: int
    max_relevant: int
    num_rows: int


def rules_of(config: EvalConfig, official: Rules) -> Rules:
    """What the settings mean for a system."""
    rules = official if config.protocol == "official" else HONEST
    return rules if config.mask_seen is None else rules._replace(mask_seen=config.mask_seen)


def put(
    slices: Slices,
    rows: Any,
    query: Callable[[Any, jax.Array], Any],
    mesh: Mesh,
    rules: Rules = HONEST,
    groups: tuple[Group, ...] = (),
) -> Split:
    """Moves a split to the devices; `rules.multiple_of` drops its last rows.

    Args:
      slices: whole histories and answers.
      rows: arrays that `query` cuts from (`Feed.splits`).
      query: (rows, index) -> query, `Feed.query`.
      mesh: devices.
      rules: what may be recommended.
      groups: rows that are cut alike, each with its own `query` (`Feed.groups`); by default all
        are cut by `query`.
    """
    count = len(slices.start) // rules.multiple_of * rules.multiple_of
    if count == 0:
        raise ValueError(
            f"a split of {len(slices.start)} rows has no full batch of {rules.multiple_of}; "
            "use the honest protocol"
        )
    kept = Slices(slices.items, *(part[:count] for part in slices[1:4]))
    seen = int(np.max(kept.end - kept.start)) if rules.mask_seen else 0
    relevant = int(np.max(kept.stop - kept.end))
    kept, rows = jax.device_put((kept, rows), NamedSharding(mesh, P()))
    groups = groups or (Group(np.arange(count, dtype=np.int32), query),)
    groups = tuple(group._replace(rows=group.rows[group.rows < count]) for group in groups)
    groups = tuple(group for group in groups if len(group.rows))
    return Split(kept, rows, groups, seen, relevant, count)


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
) -> Callable[[Any, Any, jax.Array], Evaluation]:
    """A function (params, state, key) -> Evaluation, compiled once.

    Args:
      model: four pure functions.
      split: from `put`.
      mesh: devices; a batch is sharded over them.
      config: settings.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_users: users in all, for rules under which those without an answer count.
      diagnose: also look at the lists and at the probes, which costs a second ranking.
    """
    identity = {"": np.arange(split.num_rows, dtype=np.int32)}
    run = _evaluator(
        model, split.groups, split.rows, {"": split}, identity, mesh, config, rules, train_counts,
        num_users=num_users, diagnose=diagnose,
    )  # fmt: skip
    return lambda params, state, key: run(params, state, key)[""]


def together(
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

    Where a user's query is the same in every split (`shared`) and `model.sample` reads neither its
    key nor the rows that key the noise (`reads` looks at the program itself), a user is sampled and
    scored once and masked and ranked for each split. Otherwise each split is sampled by itself; the
    figures are the same.

    Args:
      model: four pure functions.
      splits: from `put`, all under the same rules.
      shared: `Feed.shared`.
      query: `Feed.query`.
      mesh: devices.
      config: settings.
      rules: what may be recommended.
      train_counts: i64[I], how often item j + 1 occurs in training.
      num_users: users in all, for rules under which those without an answer count.
      diagnose: also look at the lists and at the probes.
    """
    rest: Any = (mesh, config, rules, train_counts)
    options: Any = {"num_users": num_users, "diagnose": diagnose}
    apart = {name: evaluator(model, split, *rest, **options) for name, split in splits.items()}

    def separately(params, state, key):
        return {name: run(params, state, key) for name, run in apart.items()}

    if shared is None:
        return separately
    rows = jax.device_put(shared.rows, NamedSharding(mesh, P()))
    # `put` may have dropped the last rows of a split
    place = {
        name: np.where(shared.place[name] < split.num_rows, shared.place[name], -1)
        for name, split in splits.items()
    }
    asked = np.flatnonzero(np.any(np.stack(list(place.values())) >= 0, axis=0))
    group = Group(asked.astype(np.int32), query)
    joint = _evaluator(model, (group,), rows, splits, place, *rest, **options)

    @functools.cache
    def is_drawn(structure, shapes) -> bool:
        params, state = jax.tree.unflatten(structure, shapes)
        index = jax.ShapeDtypeStruct((2,), jnp.int32)
        cut = jax.eval_shape(query, rows, index)
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(model.prepare, params, state)
        read = reads(model.sample, params, state, key, cut)
        probes = model.probes.values() if diagnose else ()
        probed = (reads(probe, params, state, cut)[2].row for probe in probes)
        return read[2] or read[3].row or any(probed)

    def run(params, state, key):
        leaves, structure = jax.tree.flatten(jax.eval_shape(lambda *x: x, params, state))
        drawn = is_drawn(structure, tuple(leaves))
        return separately(params, state, key) if drawn else joint(params, state, key)

    return run


def reads(fn: Callable[..., Any], *args: Any) -> Any:
    """Which of its arrays a function reads on the way to its results.

    An inner program (a loop, a jitted function) counts as reading all that it is given, so a True
    may be too many but a False is a proof.

    Args:
      fn: a function of arrays.
      args: arrays, or their shapes.

    Returns:
      `args` with a bool for every array.

    >>> import jax.numpy as jnp
    >>> reads(lambda x, y, z: (x + 1, jnp.sin(z))[0] , 1.0, 2.0, 3.0)
    (True, False, False)
    """
    program = jax.make_jaxpr(fn)(*args).jaxpr
    needed = {id(var) for var in program.outvars}
    for step in reversed(program.eqns):
        if any(id(var) in needed for var in step.outvars):
            needed.update(id(var) for var in step.invars)
    return jax.tree.unflatten(jax.tree.structure(args), [id(v) in needed for v in program.invars])


def _evaluator(
    model: Model,
    groups: tuple[Group, ...],
    rows: Any,
    splits: dict[str, Split],
    place: dict[str, np.ndarray],
    mesh: Mesh,
    config: EvalConfig,
    rules: Rules,
    train_counts: np.ndarray,
    *,
    num_users: int,
    diagnose: bool,
) -> Callable[[Any, Any, jax.Array], dict[str, Evaluation]]:
    """One run of queries that are cut from `rows`, ranked for the row of each split at `place`."""
    by_row = NamedSharding(mesh, P("data"))
    largest = max(*config.ks, _LIST)
    trained = train_counts > 0
    prepare = jax.jit(model.prepare)
    slices = {name: split.slices for name, split in splits.items()}
    seats = jax.device_put(place, NamedSharding(mesh, P()))

    def rank(points, head, answer, allowed):
        top = ranking.top(
            points,
            head.table,
            head.bias,
            k=largest + 1,
            seen=answer.seen if rules.mask_seen else None,
            allowed=allowed,
            pool=model.pool,
        )
        return top, metrics.per_user(top, answer.relevant, config.ks)

    def judged(points, found, head, answer):
        # A head may have rows beyond the catalogue (a released script ranks its padding row).
        known = jnp.asarray(np.pad(trained, (0, head.table.shape[0] - len(trained))))
        everything = jnp.ones_like(known)
        allowed = known if rules.trained_only else everything
        top, values = rank(points, head, answer, allowed)
        out = {"": values}
        lists = {}
        if diagnose:
            if not trained.all():
                other = everything if rules.trained_only else known
                name = "all_items" if rules.trained_only else "trained_items"
                out[name] = rank(points, head, answer, other)[1]
            for name, probed in found.items():
                out[name] = rank(probed, head, answer, allowed)[1]
            untrained = jnp.concatenate([jnp.zeros(1, bool), ~known])
            first = top.items[:, :_LIST]
            hit = (first[:, :, None] == answer.relevant[:, None, :]) & (first[:, :, None] > 0)
            lists = {
                "exposure": metrics.exposure(top.items, _LIST, len(known), answer.weight),
                "untrained_slots": (untrained[first] * answer.weight[:, None]).sum(),
                "hits": (hit * answer.weight[:, None, None]).sum(),
                "untrained_hits": (
                    hit * untrained[first][:, :, None] * answer.weight[:, None, None]
                ).sum(),
            }
        return out, lists

    @partial(jax.jit, static_argnums=0)
    def batch(group, params, state, key, slices, seats, rows, index):
        index = jax.lax.with_sharding_constraint(index, by_row)
        query = groups[group].query(rows, index)
        head = model.head(params, state)
        points = model.sample(params, state, key, query)
        probes = model.probes if diagnose else {}
        found = {name: probe(params, state, query) for name, probe in probes.items()}
        out = {}
        for name, split in splits.items():
            row = jnp.where(index >= 0, seats[name][jnp.maximum(index, 0)], -1)
            answer = batches.answers(
                slices[name], row, max_seen=split.max_seen, max_relevant=split.max_relevant
            )
            out[name] = judged(points, found, head, answer)
        return out

    def gathered(split, row, values, lists, table):
        kept = np.flatnonzero(row >= 0)
        kept = kept[np.argsort(row[kept])]
        joined = jax.tree.map(lambda *parts: np.concatenate(parts)[kept], *values)
        missing = missing_users(rules, num_users, split.num_rows)
        diagnostics = {name: means(joined[name], missing) for name in joined if name}
        if diagnose:
            summed = jax.tree.map(lambda *parts: np.sum(parts, axis=0, dtype=np.float64), *lists)
            diagnostics |= _diagnostics(summed, table, train_counts, split.num_rows)
        return Evaluation(means(joined[""], missing), joined[""], diagnostics, missing)

    def run(params, state, key):
        parts, indices = [], []
        state = prepare(params, state)
        for number, group in enumerate(groups):
            size = -(-min(config.batch_size, len(group.rows)) // mesh.size) * mesh.size
            for start in range(0, len(group.rows), size):
                index = np.full(size, -1, np.int32)
                part = group.rows[start : start + size]
                index[: len(part)] = part
                parts.append(batch(number, params, state, key, slices, seats, rows, index))
                indices.append(index)
        parts, index = jax.device_get(parts), np.concatenate(indices)
        table = jax.device_get(model.head(params, state)).table if diagnose else None
        out = {}
        for name, split in splits.items():
            row = np.where(index >= 0, place[name][np.maximum(index, 0)], -1)
            values, lists = zip(*(part[name] for part in parts), strict=True)
            out[name] = gathered(split, row, values, lists, table)
        return out

    return run


def over_seeds(
    run: Callable[[Any, Any, jax.Array], Evaluation],
    params: Any,
    state: Any,
    seed: int,
    seeds: int,
) -> list[Evaluation]:
    """Evaluations under `seeds` draws of the sampler's noise, a stream of their own."""
    root = jax.random.fold_in(jax.random.key(seed), 3)
    return [run(params, state, jax.random.fold_in(root, draw)) for draw in range(seeds)]


def held_out_loss(
    model: Model,
    example: Callable[[Any, jax.Array, jax.Array, jax.Array], Any],
    held: batches.Slices,
    key: jax.Array,
    batch_size: int,
) -> Callable[[Any, Any], float]:
    """(params, state) -> the objective of training on rows that were kept from it.

    Every call draws the same steps, noise and dropout, so that two states are compared on the same.

    Args:
      model: whose `loss` it is.
      example: of a feed, whose training rows are like `held`.
      held: the rows.
      key: of the draws.
      batch_size: rows at once; changes the mean's last bits.
    """
    count = len(held.start)
    total = count * max(1, -(-_LOSS_ROWS // count))
    steps = -(-total // batch_size)
    row = np.arange(steps * batch_size, dtype=np.int32).reshape(steps, batch_size)
    index = np.where(row < total, row % count, -1).astype(np.int32)
    rows = jax.tree.map(jnp.asarray, held)

    @jax.jit
    def mean(params, state, rows, index, row):
        def one(batch):
            index, row = batch
            value, _ = model.loss(params, state, key, example(rows, index, row, key))
            return value * (index >= 0).sum()

        return jax.lax.map(one, (index, row)).sum() / total

    return lambda params, state: float(mean(params, state, rows, index, row))


def mean_over_seeds(evaluations: list[Evaluation]) -> Evaluation:
    """Means of metrics and of every user's values; the diagnostics are the first draw's."""
    values = {
        name: np.stack([e.per_user[name] for e in evaluations]).mean(axis=0, dtype=np.float64)
        for name in evaluations[0].per_user
    }
    _, _, diagnostics, missing = evaluations[0]
    return Evaluation(means(values, missing), values, diagnostics, missing)


def spread(evaluations: list[Evaluation]) -> dict[str, float]:
    """Standard deviation of each metric over draws of the sampler's noise."""
    ddof = min(1, len(evaluations) - 1)
    return {
        name: float(np.std([e.metrics[name] for e in evaluations], ddof=ddof))
        for name in evaluations[0].metrics
    }


class Tuned(NamedTuple):
    """A control with the setting of its grid that does best on validation."""

    setting: dict[str, float]
    valid: float  # its validation metric
    score: item_weights.Score


def tune_controls(
    rows: Slices,
    inputs: Slices,
    valid: Slices,
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
        Slices(part.items, *(column[picked] for column in part[1:4])) for part in (inputs, valid)
    )
    out: dict[str, Tuned] = {}
    if not config.controls:
        return out
    sets = graph.item_sets(rows, num_items)
    for name in config.controls:
        item_weights.check(name, num_items)
        for setting, score in item_weights.candidates(name, sets, num_items):
            top = _item_lists(score, inputs, valid, train_counts, config, rules)
            found = means(_per_user(top, valid, config))[config.metric]
            if name not in out or found > out[name].valid:
                out[name] = Tuned(setting, found, score)
    return out


def controls(
    train: Slices,
    queries: Slices,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
    num_users: int = 0,
    tuned: dict[str, Tuned] | None = None,
    inputs: Slices | None = None,
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
    train: Slices,
    queries: Slices,
    train_counts: np.ndarray,
    config: EvalConfig,
    rules: Rules,
    tuned: dict[str, Tuned] | None = None,
    inputs: Slices | None = None,
) -> dict[str, dict[str, np.ndarray]]:
    """Every metric of every row, f32[N] each, of what `controls` takes the means of."""
    rows = len(queries.start) // rules.multiple_of * rules.multiple_of
    kept = Slices(queries.items, *(part[:rows] for part in queries[1:4]))
    scored_by = queries if inputs is None else inputs
    scored_by = Slices(scored_by.items, *(part[:rows] for part in scored_by[1:4]))
    allowed = train_counts > 0 if rules.trained_only else None
    tops = control_lists.controls(
        train,
        kept,
        train_counts,
        k=max(*config.ks, _LIST) + 1,
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
        missing = missing_users(rules, num_users, len(next(iter(values.values()))))
        out[name] = means(values, missing)
        if tuned and name in tuned:
            out[name] |= tuned[name].setting | {f"valid_{config.metric}": tuned[name].valid}
    return out


def _item_lists(score, inputs, queries, train_counts, config: EvalConfig, rules: Rules):
    return item_weights.lists(
        score,
        inputs,
        queries,
        num_items=len(train_counts),
        k=max(*config.ks, _LIST) + 1,
        mask_seen=rules.mask_seen,
        allowed=train_counts > 0 if rules.trained_only else None,
    )


_jitted_per_user = jax.jit(metrics.per_user, static_argnums=2)


def _per_user(top: Any, queries: Slices, config: EvalConfig) -> dict[str, np.ndarray]:
    """Every metric of every row, f32[N] each, from lists on the host."""
    return jax.device_get(_jitted_per_user(top, _relevant(queries), config.ks))


def missing_users(rules: Rules, num_users: int, num_rows: int) -> int:
    """How many users without a row the rules count."""
    return max(num_users - num_rows, 0) if rules.all_users else 0


def means(per_user: dict[str, np.ndarray], missing: int = 0) -> dict[str, float]:
    """Means over users, added up in float64; `missing` more have zeros."""
    return {
        name: float(np.sum(values, dtype=np.float64) / (len(values) + missing))
        for name, values in per_user.items()
    }


def _relevant(slices: Slices) -> np.ndarray:
    """i32[N, R] the answers of every row, padded with 0."""
    width = int(np.max(slices.stop - slices.end))
    place = slices.end[:, None] + np.arange(width)
    inside = place < slices.stop[:, None]
    return np.where(inside, slices.items[np.where(inside, place, 0)], 0).astype(np.int32)


def _diagnostics(
    summed: dict[str, np.ndarray], table: np.ndarray, train_counts: np.ndarray, num_rows: int
) -> dict[str, Any]:
    popularity = np.pad(train_counts, (0, len(table) - len(train_counts)))
    known = popularity > 0
    exposure = summed["exposure"]
    counts = {
        "untrained_top20": float(summed["untrained_slots"] / (num_rows * _LIST)),
        "hits_untrained": float(summed["untrained_hits"] / max(summed["hits"], 1.0)),
        "untrained_items": int((train_counts == 0).sum()),
        "distinct_items": int((exposure > 0).sum()),
        "coverage@20": float(metrics.coverage(exposure)),
        "gini@20": float(metrics.gini(exposure)),
        "average_popularity@20": metrics.average_popularity(exposure, popularity),
    }
    return counts | {k: float(v) for k, v in metrics.table_spread(table, known).items()}
