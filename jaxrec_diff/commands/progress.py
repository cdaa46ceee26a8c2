"""A training as it goes, and its results, on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxrec_diff.config import Experiment
from jaxrec_diff.evaluation import config
from jaxrec_diff.experiments import selection
from jaxrec_diff.reporting import diffusion, orders, tables
from jaxrec_diff.reporting.text import wrapped
from jaxrec_diff.training import checkpoint
from jaxrec_diff.training import progress as training_progress
from jaxrec_diff.training.progress import Progress


@contextmanager
def progress(experiment: Experiment) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line an epoch anywhere else."""
    if not sys.stdout.isatty():

        def plain(event: Progress) -> None:
            if event.kind == "compile":
                print("compiling ...", flush=True)
            if event.kind == "epoch":
                print(_line(event, experiment), flush=True)

        yield plain
        return

    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns) as bar:
        task = bar.add_task("starting", total=None, speed="")

        def fancy(event: Progress) -> None:
            if event.kind == "epoch":
                bar.console.print(_line(event, experiment), highlight=False)
            if event.kind == "compile":  # time that is left counts from here
                bar.reset(task, completed=event.step, total=event.total_steps, speed="")
                bar.update(task, description="compiling", refresh=True)
            if event.kind in ("train", "epoch"):
                best = _best(event, experiment)
                bar.update(
                    task,
                    completed=event.step,
                    total=event.total_steps,
                    description=f"epoch {event.epoch:.1f} step {event.step:,} of "
                    f"{event.total_steps:,} loss {event.metrics.get('loss', 0):.4f} {best}",
                    speed=f"{event.examples_per_second:,.0f} examples/s",
                )

        yield fancy


def _line(event: Progress, experiment: Experiment) -> str:
    """An evaluation in words, and how near the end of patience it is."""
    metric = f"valid/{selection.metric_of(experiment, event.phase)}"
    line = training_progress.epoch_line(
        event.step, event.epoch, event.examples_per_second, event.metrics, metric
    )
    patience = selection.patience_of(experiment, event.phase)
    if not event.bad_evals or not patience:
        return line
    return f"{line}  {_best(event, experiment)}, {event.bad_evals} of {patience} without gain"


def _best(event: Progress, experiment: Experiment) -> str:
    """The best validation figure of a phase so far, over all restarts."""
    if event.best_score <= checkpoint.WORST:
        return ""
    sign = config.sign(selection.metric_of(experiment, event.phase))
    return f"best {sign * event.best_score:.4f}"


def show(results: dict[str, Any]) -> None:
    print()
    print(
        f"{results['model']} on {results['dataset']}, {results['split']} split, "
        f"{results['num_users']:,} rows, {results['protocol']} protocol"
    )
    if "best_step" in results:
        print(f"checkpoint of step {results['best_step']:,}, chosen by {results['selected_by']}")
    print(tables.table(results))
    beside = (tables.control_lines, orders.lines, diffusion.lines)
    for line in (line for of in beside for line in of(results)):
        print(wrapped(line))
    for line in tables.diagnostics_lines(results["diagnostics"]):
        print(line)
