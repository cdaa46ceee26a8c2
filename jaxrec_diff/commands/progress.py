"""A training as it goes, and its results, on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from jaxrec_diff.config import Experiment
from jaxrec_diff.evaluation import config
from jaxrec_diff.experiments import selection
from jaxrec_diff.reporting import tables
from jaxrec_diff.training import progress as training_progress
from jaxrec_diff.training.progress import Progress


@contextmanager
def progress(experiment: Experiment) -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, a line an epoch anywhere else."""

    def line(event: Progress) -> str:
        metric = f"valid/{selection.metric_of(experiment, event.phase)}"
        return training_progress.epoch_line(
            event.step, event.epoch, event.examples_per_second, event.metrics, metric
        )

    if not sys.stdout.isatty():

        def plain(event: Progress) -> None:
            if event.kind == "epoch":
                print(line(event), flush=True)

        yield plain
        return

    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(bar_width=None),
        bars.TextColumn("{task.fields[speed]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns) as bar:
        task = bar.add_task("training", total=None, speed="")
        best: dict[str, float] = {}  # of each phase

        def fancy(event: Progress) -> None:
            if event.kind == "epoch":
                metric = selection.metric_of(experiment, event.phase)
                better = max if config.sign(metric) > 0 else min
                now = event.metrics[f"valid/{metric}"]
                best[event.phase] = better(best.get(event.phase, now), now)
                bar.console.print(line(event), highlight=False)
            if event.kind in ("train", "resume"):
                bar.update(
                    task,
                    completed=event.step,
                    total=event.total_steps,
                    description=f"epoch {event.epoch:.1f} loss {event.metrics.get('loss', 0):.4f} "
                    + (f"best {best[event.phase]:.4f}" if event.phase in best else ""),
                    speed=f"{event.examples_per_second:,.0f} examples/s",
                )

        yield fancy


def show(results: dict[str, Any]) -> None:
    print()
    print(
        f"{results['model']} on {results['dataset']}, {results['split']} split, "
        f"{results['num_users']:,} rows, {results['protocol']} protocol"
    )
    if "best_step" in results:
        print(f"checkpoint of step {results['best_step']:,}, chosen by {results['selected_by']}")
    print(tables.table(results))
    for line in tables.control_lines(results) + tables.order_lines(results):
        print(line)
    for line in tables.diagnostics_lines(results["diagnostics"]):
        print(line)
