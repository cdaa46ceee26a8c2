"""Sections of a run's page that its best checkpoint is asked for, on some test users each."""

from dataclasses import replace
from html import escape
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.diffusion import process, timesteps
from jaxrec_diff.evaluation import metrics, rank
from jaxrec_diff.experiments import judging, phases, restore
from jaxrec_diff.inference import histories
from jaxrec_diff.inference import recommender as inference_recommender
from jaxrec_diff.ops import ragged
from jaxrec_diff.reporting import figures, page, statistics

_RESAMPLES = 1000
_USERS = 1000  # of the curve over reverse steps and of the lists that are counted
_STEP_POINTS = 6
_WALKERS = 61
_DRAWN = 6
_EXAMPLES = 6
_SHOWN_HISTORY = 8
_LIST = 10
_CLOUD = 5000  # items that are drawn
_BATCH = 256
_NAMED = 40  # items of the map that say their names


def steps(restored: restore.Restored, metric: str) -> str:
    """Quality against the number of reverse steps; "" where there is no choice of them."""
    experiment, dataset = restored.phase.settings, restored.phase.dataset
    sampler = getattr(experiment.model, "sampler", None)
    if (
        sampler is None
        or not hasattr(sampler, "steps")
        or not hasattr(experiment.model, "num_steps")
    ):
        return ""
    total, cut_off = experiment.model.num_steps, int(metric.partition("@")[2])
    drawn_kind = sampler.kind not in ("one_step", "closed_form")
    kind = sampler.kind if drawn_kind else "ddim"
    grid = np.unique(np.geomspace(1, total, _STEP_POINTS).round().astype(int))
    rows = min(_USERS, len(dataset.test.start))
    part = dataset._replace(
        test=ragged.pick(dataset.test, slice(rows)),
        test_users=dataset.test_users[:rows],
        shown=dataset.shown
        and dataset.shown | {"test": ragged.pick(dataset.shown["test"], slice(rows))},
    )

    def judged(chosen: Any) -> np.ndarray:
        settings = replace(
            experiment,
            model=replace(experiment.model, sampler=chosen),
            eval=replace(experiment.eval, protocol="honest", seeds=1, metric=metric, ks=(cut_off,)),
        )
        asked = phases.changed(restored.phase, settings=settings, dataset=part)
        (found,) = judging.draws(asked, restored.params, restored.state, "test")
        return found.per_user[metric].astype(np.float64)

    # fewer steps than the schedule has; 0 is the sampler's word for all of them
    values = [
        judged(replace(sampler, kind=kind, steps=int(count) if count < total else 0))
        for count in grid
    ]
    labels = [str(count) for count in grid]
    if not drawn_kind:  # the run's own way has no number of steps on this curve
        values.append(judged(sampler))
        labels.append(sampler.kind.replace("_", " "))
    drawn = statistics.bootstrap(np.stack(values, axis=1), _RESAMPLES)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    mean = np.mean(values, axis=1)
    own = sampler.steps or total
    picture = figures.steps(
        grid, mean[: len(grid)], low[: len(grid)], high[: len(grid)], what=metric,
        own=own if drawn_kind else None, level=None if drawn_kind else float(mean[-1]),
    )  # fmt: skip
    cells = [
        [label, f"{figure:.4f}", f"{a:.4f} - {b:.4f}"]
        for label, figure, a, b in zip(labels, mean, low, high, strict=True)
    ]
    dashed = f"number of steps ({own}, {sampler.kind})" if drawn_kind else f"way, {labels[-1]}"
    return page.figure(
        picture,
        f"The {kind} sampler on {rows:,} test rows, honest protocol, 95 % over users. Dashed: the "
        f"run's own {dashed}.",
    ) + page.table(["steps", metric, "95 %"], cells)


class Walk(NamedTuple):
    """The reverse process of some test users, and the items it ends among, on the host."""

    points: np.ndarray  # f32[N + 1, B, D]
    estimates: np.ndarray  # f32[N, B, D], of x_0, made at the first N points
    t: np.ndarray  # i32[N], falling
    table: np.ndarray | None  # f32[I, E] rows of items
    bias: np.ndarray | None  # f32[I]
    answers: np.ndarray  # i32[B], the true item of each
    same: bool  # whether points and items lie in one space


def walk(restored: restore.Restored) -> Walk | None:
    """The walks of the first test users; None for a model whose points are no end of a walk."""
    phase, model, params, state = restored
    if model.chain is None:
        return None
    test, chain = phase.dataset.test, model.chain
    size = min(_WALKERS, len(test.start))

    @jax.jit
    def walked(params, state, rows):
        query = phase.batcher.query(rows, jnp.arange(size))
        state = model.precompute(params, state)
        key = jax.random.key(0)
        made, ends = chain(params, state, key, query), model.sample(params, state, key, query)
        path = process.trajectory(made)
        seen = jax.lax.map(lambda at: made.denoise(*at), (path[:-1], made.steps.t))
        return path, seen, made.steps.t, ends, model.head(params, state)

    found = walked(params, state, phase.batcher.splits["test"])
    points, estimates, t, ends, head = jax.device_get(found)
    table = rank.item_rows(head)
    bias = None if head.bias is None else head.bias[head.first :][: rank.num_items(head)]
    points, estimates = (
        each.reshape(len(each), size, -1, each.shape[-1])[:, :, 0] for each in (points, estimates)
    )
    same = among_items(points[-1], ends.reshape(size, -1, ends.shape[-1])[:, 0], table, bias)
    return Walk(points, estimates, t, table, bias, test.items[test.end[:size]], same)


def among_items(last: np.ndarray, ends: np.ndarray, table: np.ndarray | None, bias: Any) -> bool:
    """Whether walks end where the model recommends from: the best item of nearly all is the same.

    A model may finish a walk elsewhere: DiffRec's leads through rows of users, or through another
    layer than the one that items are scored by, and may be as wide as that all the same.

    Args:
      last: f[B, D] the ends of walks.
      ends: f[B, E] the points that the model makes of them.
      table: f[I, E] rows of items; None where there are none.
      bias: f[I] or None.
    """
    if table is None or last.shape != ends.shape:
        return False
    more = 0.0 if bias is None else bias
    first, second = ((each @ table.T + more).argmax(axis=1) for each in (last, ends))
    return bool(np.mean(first == second) > 0.9)


def walks(restored: restore.Restored) -> str:
    """Where the walks of some users go among the items, how the true item's rank falls on the way,
    and how well each time step does; "" for a model without a walk."""
    found = walk(restored)
    if found is None:
        return ""
    points = found.points
    cloud = scaled(found) if found.same else points[-1]
    centre, plane, share = main_plane(cloud)
    picture = figures.paths(
        (cloud[_some(len(cloud))] - centre) @ plane if found.same else None,
        (points[:, :_DRAWN] - centre) @ plane,
        heading=f"{_DRAWN} test users in the two main directions of the "
        + ("items" if found.same else "ends"),
    )
    body = page.figure(
        picture,
        f"The two directions hold {share:.0%} of the variance"
        + (" of the items, scaled to the length of the ends." if found.same else "."),
    )
    rest = [each for each in (_rank(found), _by_step(restored, found)) if each]
    if not rest:
        return body
    return body + page.figure([each for each, _ in rest], " ".join(said for _, said in rest))


def _rank(found: Walk) -> tuple[str, str] | None:
    """The rank of the true item on the way, and what there is to say of it."""
    points, table = found.points, found.table
    if table is None or not found.same:
        return None
    ranks = true_ranks(points, table, found.bias, found.answers)
    walked = np.arange(len(points))
    lines = {
        f"{q:.0%} of users": (walked, np.quantile(ranks, q, axis=1)) for q in (0.25, 0.5, 0.75)
    }
    return (
        figures.curves("rank of the true item", lines, across="reverse steps taken"),
        f"Where the point of {points.shape[1]} users ranks the true item on its way, of "
        f"{len(table):,}; a walk that knows nothing stays at {len(table) // 2:,}.",
    )


def _by_step(restored: restore.Restored, found: Walk) -> tuple[str, str] | None:
    """The loss by time step where training kept it, else the error of the estimate of x_0."""
    kept = [
        leaf
        for leaf in jax.tree.leaves(restored.state, is_leaf=_is_history)
        if _is_history(leaf) and np.asarray(leaf.count).any()
    ]
    if kept:
        losses, count = np.asarray(kept[0].losses, np.float64), np.asarray(kept[0].count)
        filled = np.arange(losses.shape[1]) < count[:, None]
        mean = np.where(filled, losses, 0).sum(axis=1) / np.maximum(count, 1)
        t = np.arange(len(mean))[count > 0]
        picture = figures.curves("loss", {"loss": (t, mean[t])}, across="time step")
        said = f"Mean of the last {losses.shape[1]} training losses of each step, which training "
        return picture, said + "keeps to draw the steps by; 0 is the least noisy."
    if not found.same or len(found.t) < 2:
        return None
    error = unexplained(found)
    picture = figures.curves("error of the estimate of x_0", {"error": error}, across="time step")
    return (
        picture,
        "Share of the variance of the true items that the network's estimate of x_0 misses at "
        f"each point of the walks of {found.points.shape[1]} users, at its best length: 1 is as "
        "good as their mean item, 0 is the true one. A walk goes from right to left.",
    )


def unexplained(found: Walk) -> tuple[np.ndarray, np.ndarray]:
    """(t, share of the true items' variance that the estimates at t miss, at their best length).

    min over a of sum |a x0_hat - x_0|^2 / sum |x_0 - mean x_0|^2: models that score by direction
    give their estimates any length.
    """
    assert found.table is not None, "estimates of items need their rows"
    true = found.table[found.answers - 1].astype(np.float64)
    spread = max(float(((true - true.mean(axis=0)) ** 2).sum()), 1e-12)
    across = (found.estimates * true).sum(axis=(1, 2), dtype=np.float64)
    length = np.maximum((found.estimates.astype(np.float64) ** 2).sum(axis=(1, 2)), 1e-12)
    return found.t, ((true**2).sum() - across**2 / length) / spread


def _items(restored: restore.Restored) -> tuple[str, str] | None:
    """The items in their two main directions, by how often they were trained on."""
    dataset = restored.phase.dataset

    @jax.jit
    def rows(params, state):
        return restored.model.head(params, restored.model.precompute(params, state))

    table = rank.item_rows(jax.device_get(rows(restored.params, restored.state)))
    if table is None or len(table) != dataset.num_items or min(table.shape) < 2:
        return None
    counts = dataset.train_counts
    centre, plane, share = main_plane(table)
    order = np.argsort(counts, kind="stable")
    kept = order[_some(len(order))]
    groups, names = statistics.quarters(counts[kept].astype(np.float64))
    points = (table[kept] - centre) @ plane
    best = range(len(kept) - min(_NAMED, len(kept)), len(kept))
    said = {
        row: f"{dataset.label(int(kept[row]) + 1)}: trained on {counts[kept[row]]:,} times"
        for row in best
    }
    picture = figures.item_map(
        points, groups, names, said, heading="items in their two main directions"
    )
    few = "" if len(kept) == len(table) else f", {len(kept):,} of {len(table):,} items"
    return (
        picture,
        f"Rows of the catalogue by popularity{few}; the directions hold {share:.0%} of their "
        f"variance. The {len(said)} most popular say their names to a pointer.",
    )


def exposure(restored: restore.Restored) -> str:
    """How unequally lists share out the catalogue, and where its items lie by popularity."""
    dataset = restored.phase.dataset
    size = min(_USERS, len(dataset.test.start))
    rows = np.linspace(0, len(dataset.test.start) - 1, size).astype(int)
    shown = _lists(restored, rows)
    often = np.bincount(shown.ravel(), minlength=dataset.num_items + 1)[1:]
    given = dataset.train_counts
    drawn = (
        figures.lorenz(
            {"shown": often, "trained on": given}, heading="who gets the places of the lists"
        ),
        f"Top-{shown.shape[1]} lists of {size:,} test users show {(often > 0).sum():,} of "
        f"{dataset.num_items:,} items, gini {metrics.gini(often):.3f}; the training interactions "
        f"have {metrics.gini(given):.3f}.",
    )
    both = [each for each in (drawn, _items(restored)) if each]
    return page.figure([each for each, _ in both], " ".join(said for _, said in both))


def _is_history(leaf: Any) -> bool:
    return isinstance(leaf, timesteps.History)


def scaled(found: Walk) -> np.ndarray:
    """The items, as long as the ends of walks are: both are compared by direction."""
    assert found.table is not None, "walks among items need their rows"
    middle = np.median(np.linalg.norm(found.points[-1], axis=-1))
    own = max(float(np.median(np.linalg.norm(found.table, axis=-1))), 1e-12)
    return found.table * (middle / own)


def main_plane(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean, two main directions f[D, 2] and the share of the variance that these hold."""
    centre = rows.mean(axis=0)
    _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
    share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12))
    return centre, axes[:2].T, share


def _some(count: int) -> np.ndarray:
    """Rows of a cloud that a page has room for."""
    return np.unique(np.linspace(0, count - 1, min(count, _CLOUD)).astype(int))


def _lists(restored: restore.Restored, rows: np.ndarray) -> np.ndarray:
    """Top lists of some test rows, i32[N, k]."""
    dataset = restored.phase.dataset
    asked = ragged.pick(phases.scored_by(restored.phase, "test"), rows)
    recommender = inference_recommender.of(
        restored, k=min(_LIST, dataset.num_items), batch_size=min(len(rows), _BATCH)
    )
    users = dataset.test_users[rows]
    given = [histories.of_rows(recommender, asked, users)]
    parts = [found.items for found in inference_recommender.ask(recommender, given)]
    return np.concatenate(parts)


def true_ranks(points: np.ndarray, table: np.ndarray, bias, answers: np.ndarray) -> np.ndarray:
    """i64[N, B] how many items score at least as much as the answer, step by step."""
    out = []
    for each in points:
        scores = each @ table.T + (0.0 if bias is None else bias)
        out.append((scores >= scores[np.arange(len(answers)), answers - 1][:, None]).sum(axis=1))
    return np.array(out)


def examples(restored: restore.Restored) -> str:
    """Histories, lists and answers of users that are spread evenly over the split."""
    dataset = restored.phase.dataset
    place = np.linspace(0, len(dataset.test.start) - 1, _EXAMPLES).astype(int)
    rows = ragged.pick(dataset.test, place)
    users = dataset.test_users[place]
    lists = _lists(restored, place)

    def names(items: np.ndarray) -> list[str]:
        return [dataset.label(item) for item in items if item > 0]

    between = ", " if dataset.titles is None else "; "  # a title may hold a comma
    heads = ("history, oldest first", "recommended", "truth")
    lines = ["<tr><th>user</th>" + "".join(f"<th class=text>{h}</th>" for h in heads) + "</tr>"]
    for row in range(len(place)):
        history = names(rows.items[rows.start[row] : rows.end[row]])
        last = between.join(history[-_SHOWN_HISTORY:])
        truth = names(rows.items[rows.end[row] : rows.stop[row]])
        more = "… " if len(history) > _SHOWN_HISTORY else ""
        shown = between.join(
            f"<span class=hit>{escape(name)}</span>" if name in truth else escape(name)
            for name in names(lists[row])
        )
        lines.append(
            f"<tr><td>{escape(str(dataset.user_ids[users[row]]))}</td>"
            f'<td class=text data-what="history">{more}{escape(last)}</td>'
            f'<td class=text data-what="recommended">{shown}</td>'
            f'<td class=text data-what="truth">{escape(between.join(truth))}</td></tr>'
        )
    return (
        f'<div class="scroll"><table class="stack">{"".join(lines)}</table></div>'
        f"<p class=soft>The {_LIST} best items of each; the truth is underlined where it is among "
        "them. Users are spread evenly over the test split, not picked.</p>"
    )
