"""`report.html` of a workdir: one file that holds everything a reader of its figures will ask for.

What training wrote is shown as it is; quality against reverse steps, the walks of the reverse
process and the example users are worked out here, from the best checkpoint, on some test users.
"""

import json
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrec_diff.data.card import render
from jaxrec_diff.diffusion import process
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import json_files, judging, phases, restore, workdirs
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.inference import histories
from jaxrec_diff.inference import recommender as inference_recommender
from jaxrec_diff.ops import files, ragged
from jaxrec_diff.reporting import diffusion, figures, leaderboard, page, statistics
from jaxrec_diff.reporting.text import wrapped

_RESAMPLES = 1000
_STEP_USERS = 1000  # test users of the curve over reverse steps
_STEP_POINTS = 6
_WALKERS = 61
_DRAWN = 6
_EXAMPLES = 6
_SHOWN_HISTORY = 8
_LIST = 10


def write(workdir: Path, made: Run | None = None) -> Path:
    """Writes `report.html` into a finished workdir.

    Args:
      workdir: what `bin/train` left.
      made: its run, if that is in memory.

    Raises:
      ValueError: if the run is not finished, or matplotlib is missing.
    """
    if not figures.available():
        raise ValueError("the report needs matplotlib: pip install 'jaxrec-diff[report]'")
    run = leaderboard.read(workdir)
    if made is None:
        made = restore.reopen(workdir)
    restored = restore.honest(restore.restore(made, workdir))
    results = run.results
    metric = results["selected_by"].split()[-1]
    sections = [
        ("Beside its controls", _metrics(run, metric)),
        ("Training", _training(workdir, results, metric)),
        ("Does it diffuse?", _diffusion(results)),
        ("Quality against reverse steps", _steps(restored, metric)),
        ("Who is served well", _strata(workdir, run, metric)),
        ("From noise to an item", _walks(restored)),
        ("Example users", _examples(restored)),
        ("Data", f"<pre>{escape(wrapped(render(made.dataset.card)))}</pre>"),
        ("How to make this run again", _again(workdir, results)),
    ]
    kept = [(heading, body) for heading, body in sections if body]
    path = workdir / "report.html"
    title = f"{results['model']} on {results['dataset']}"
    with files.replacing(path) as partial:
        partial.write_text(page.document(title, kept, _lead(results, metric)))
    return path


def _lead(results: dict[str, Any], metric: str) -> str:
    best = results["share_of_optimum"].get(metric)
    return (
        f"<p>{metric} <b>{results['metrics'][metric]:.4f}</b> on {results['num_users']:,} test rows"
        + (f", {best:.0%} of what is possible" if best else "")
        + f"; checkpoint of step {results['best_step']:,} of {results['steps']:,}, picked by "
        f"{escape(results['selected_by'])}.</p><p class=soft>{escape(results['split_rule'])}; "
        f"{escape(results['protocol'])} protocol; seed {results['seed']}; "
        f"{escape(results['device'])}; commit {escape(results['commit'])}.</p>"
    )


def _metrics(run: leaderboard.Run, metric: str) -> str:
    board = leaderboard.board([run], metric=metric, resamples=_RESAMPLES)
    entries = sorted(board.entries, key=lambda entry: entry.seeds == 0)
    rows = []
    for entry in entries:
        cells = [entry.name]
        for name in board.metrics:
            low, high = entry.intervals[name]
            cells.append(f"{entry.means[name]:.4f}\n{low:.4f} - {high:.4f}")
        rows.append(cells)
    for name, values in run.results["diagnostics"].items():
        if isinstance(values, dict):
            label = f"{run.name}: {name.replace('_', ' ')}"
            rows.append([label, *(f"{values[m]:.4f}" for m in board.metrics)])
    if run.results["optimum"]:
        optimum = run.results["optimum"]
        rows.append(
            ["best possible", *(f"{optimum[m]:.4f}" if m in optimum else "" for m in board.metrics)]
        )
    picture = figures.intervals(
        [entry.name for entry in entries],
        np.array([entry.means[metric] for entry in entries]),
        *np.array([entry.intervals[metric] for entry in entries]).T,
        what=metric,
    )
    return (
        _figure(picture, "")
        + page.table(["", *board.metrics], rows, best=0)
        + f"<p class=soft>Small: 95 % by {_RESAMPLES:,} bootstrap resamples of the users; they "
        "hold the spread over users, not over seeds.</p>"
    )


def _training(workdir: Path, results: dict[str, Any], metric: str) -> str:
    path = workdir / "metrics.jsonl"
    lines = json_files.read_lines(path)
    if not lines:
        return ""
    epoch = np.array([line["epoch"] for line in lines])

    def column(name: str) -> tuple[np.ndarray, np.ndarray]:
        return epoch, np.array([line.get(name, np.nan) for line in lines])

    per_epoch = lines[0]["step"] / lines[0]["epoch"]
    watched = {"validation": column(f"valid/{metric}")}
    if f"test/{metric}" in lines[0]:
        watched["test"] = column(f"test/{metric}")
    best = results["best_step"] / per_epoch
    picture = [
        figures.curves("training loss", {"loss": column("loss")}, across="epoch", mark=best),
        figures.curves(metric, watched, across="epoch", mark=best),
    ]
    words = f"Dashed: the epoch of the checkpoint. {results['train_seconds']:,.0f} s of updates"
    if "cpu_seconds" in results:
        words += f" ({results['cpu_seconds']:,.0f} s of processors), after "
        words += f"{results['compile_seconds']:,.0f} s that compiled"
    return _figure(picture, words + f"; {results['examples_per_second']:,.0f} examples/s.")


def _steps(restored: restore.Restored, metric: str) -> str:
    experiment, dataset = restored.phase.settings, restored.phase.dataset
    sampler = getattr(experiment.model, "sampler", None)
    if (
        sampler is None
        or not hasattr(sampler, "steps")
        or not hasattr(experiment.model, "num_steps")
    ):
        return "<p>This model has no reverse process with a choice of steps.</p>"
    total, cut_off = experiment.model.num_steps, int(metric.partition("@")[2])
    drawn_kind = sampler.kind in ("ddpm", "mean", "ddim", "dpmpp")
    kind = sampler.kind if drawn_kind else "ddim"
    grid = np.unique(np.geomspace(1, total, _STEP_POINTS).round().astype(int))
    rows = min(_STEP_USERS, len(dataset.test.start))
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
    return _figure(
        picture,
        f"The {kind} sampler on {rows:,} test rows, honest protocol, 95 % over users. Dashed: the "
        f"run's own {dashed}.",
    ) + page.table(["steps", metric, "95 %"], cells)


def _diffusion(results: dict[str, Any]) -> str:
    found = results.get("diffusion")
    if not found:
        return ""
    said = diffusion.lines(results)[len(found["rows"]) + 2 :]
    return page.table(*diffusion.table(found)) + "".join(f"<p>{escape(line)}</p>" for line in said)


def _strata(workdir: Path, run: leaderboard.Run, metric: str) -> str:
    import pyarrow.parquet as pq

    table = pq.read_table(workdirs.per_user_path(workdir))
    series = {run.name: np.asarray(table[metric], np.float64)}
    if f"popularity:{metric}" in table.column_names:
        series["popularity"] = np.asarray(table[f"popularity:{metric}"], np.float64)
    pictures = []
    for heading, column in (
        ("training count of the answer", "answer_popularity"),
        ("length of the history", "history_length"),
    ):
        by = np.asarray(table[column], np.float64)
        groups, names = _quarters(by)
        found = {}
        for name, values in series.items():
            each = [values[groups == g] for g in range(len(names))]
            half = [1.96 * v.std() / max(len(v), 1) ** 0.5 for v in each]
            found[name] = (np.array([v.mean() for v in each]), np.array(half))
        pictures.append(figures.bars(heading, names, found, what=metric))
    return _figure(
        pictures,
        "Test rows in four groups of about the same size, with the range of each; bars of 95 %.",
    )


def _quarters(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A group from 0 of every value, and the ranges of the groups that are not empty."""
    cuts = np.unique(np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf"))
    raw = np.searchsorted(cuts, values, side="left")
    _, groups = np.unique(raw, return_inverse=True)
    names = []
    for group in range(groups.max() + 1):
        low, high = values[groups == group].min(), values[groups == group].max()
        names.append(f"{low:,.0f}" if low == high else f"{low:,.0f}-{high:,.0f}")
    return groups, names


def _walks(restored: restore.Restored) -> str:
    phase, model, params, state = restored
    if model.chain is None:
        return "<p>This model's points are not the end of a walk.</p>"
    test = phase.dataset.test
    size = min(_WALKERS, len(test.start))
    chain = model.chain

    @jax.jit
    def walk(params, state, rows):
        query = phase.batcher.query(rows, jnp.arange(size))
        state = model.precompute(params, state)
        path = process.trajectory(chain(params, state, jax.random.key(0), query))
        return path, model.head(params, state)

    points, head = jax.device_get(walk(params, state, phase.batcher.splits["test"]))
    points = points.reshape(len(points), size, -1, points.shape[-1])[:, :, 0]
    table = rank.item_rows(head)
    bias = None if head.bias is None else head.bias[head.first :][: len(table)]
    same = table.shape[1] == points.shape[-1] and table.shape[0] != table.shape[1]
    cloud = table if same else points[-1]
    if same:  # a walk and the items are compared by direction where their lengths differ
        middle = np.median(np.linalg.norm(points[-1], axis=-1))
        cloud = table * (middle / max(float(np.median(np.linalg.norm(table, axis=-1))), 1e-12))
    centre = cloud.mean(axis=0)
    _, sizes, axes = np.linalg.svd(cloud - centre, full_matrices=False)
    plane = axes[:2].T
    share = float((sizes[:2] ** 2).sum() / max((sizes**2).sum(), 1e-12))
    picture = figures.paths(
        (cloud - centre) @ plane if same else None,
        (points[:, :_DRAWN] - centre) @ plane,
        heading=f"{_DRAWN} test users in the two main directions of the "
        + ("items" if same else "ends"),
    )
    body = _figure(
        picture,
        f"The two directions hold {share:.0%} of the variance"
        + (" of the items, scaled to the length of the ends." if same else "."),
    )
    if same:
        answers = test.items[test.end[:size]]
        ranks = _ranks(points, table, bias, answers)
        walked = np.arange(len(points))
        lines = {
            f"{q:.0%} of users": (walked, np.quantile(ranks, q, axis=1)) for q in (0.25, 0.5, 0.75)
        }
        body += _figure(
            figures.curves("rank of the true item", lines, across="reverse steps taken"),
            f"Where the point of {size} users ranks the true item on its way, of "
            f"{len(table):,}; a walk that knows nothing stays at {len(table) // 2:,}.",
        )
    return body


def _ranks(points: np.ndarray, table: np.ndarray, bias, answers: np.ndarray) -> np.ndarray:
    """i64[N, B] how many items score at least as much as the answer, step by step."""
    out = []
    for each in points:
        scores = each @ table.T + (0.0 if bias is None else bias)
        out.append((scores >= scores[np.arange(len(answers)), answers - 1][:, None]).sum(axis=1))
    return np.array(out)


def _examples(restored: restore.Restored) -> str:
    dataset = restored.phase.dataset
    place = np.linspace(0, len(dataset.test.start) - 1, _EXAMPLES).astype(int)
    rows = ragged.pick(dataset.test, place)
    users = dataset.test_users[place]
    asked = ragged.pick(phases.scored_by(restored.phase, "test"), place)
    recommender = inference_recommender.of(
        restored, k=min(_LIST, dataset.num_items), batch_size=_EXAMPLES
    )
    (lists,) = inference_recommender.ask(
        recommender, [histories.of_rows(recommender, asked, users)]
    )

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
            for name in names(lists.items[row])
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


def _again(workdir: Path, results: dict[str, Any]) -> str:
    settings = json.loads((workdir / "config.json").read_text())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"<pre>{escape(results['command'] or 'trained from Python')}</pre>"
        f"<p class=soft>commit {escape(results['commit'])}; {escape(versions)}; "
        f"{escape(results['platform'])}</p><details><summary>all settings</summary>"
        f"<pre>{escape(json.dumps(settings, indent=1))}</pre></details>"
    )


def _figure(pictures: str | list[str], caption: str) -> str:
    svg = pictures
    if isinstance(pictures, list):
        svg = f'<div class="side">{"".join(f"<div>{picture}</div>" for picture in pictures)}</div>'
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg}{words}</figure>"
