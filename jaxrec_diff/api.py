"""Train, evaluate and recommend from Python, on tables in memory.

    import jaxrec_diff
    fitted = jaxrec_diff.train("sasrec", clicks, "runs/shop")
    fitted.recommend(histories=[["shoe-12", "hat-3"]], k=10).to_pandas()
    fitted.evaluate("valid")["metrics"]["ndcg@10"]
    jaxrec_diff.compare("runs/shop", "runs/other")

These are the runs that the commands make: `bin/report --workdir=runs/shop` goes on from here, and
`recommend` from what `bin/train` left. On a terminal and in a notebook a training tells how far it
is; `progress=False` hushes it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrec_diff import config
from jaxrec_diff.commands.progress import progress as shown
from jaxrec_diff.config.presets import about
from jaxrec_diff.data import frames
from jaxrec_diff.experiments import diffusing, judging, pipeline, restore, runs
from jaxrec_diff.inference.recommend import recommend
from jaxrec_diff.inference.recommender import load
from jaxrec_diff.inference.types import Recommendations, Recommender, as_frame
from jaxrec_diff.ops import files
from jaxrec_diff.reporting import board_text, leaderboard
from jaxrec_diff.training.progress import Progress

__all__ = [
    "Board",
    "Fitted",
    "compare",
    "evaluate",
    "export",
    "list_models",
    "load",
    "recommend",
    "report",
    "settings",
    "train",
    "tune",
]

Settings = Mapping[str, Any]


class Fitted(dict[str, Any]):
    """What `results.json` holds, by name, and what can be asked of the model that was trained."""

    def __init__(self, results: Mapping[str, Any], workdir: Path):
        super().__init__(results)
        self.workdir = workdir
        self._loaded: tuple[dict[str, Any], Recommender] | None = None

    def recommend(
        self,
        *,
        users: Sequence | None = None,
        histories: Sequence[Sequence] | None = None,
        **options: Any,
    ) -> Recommendations:
        """Top lists, as `recommend` gives them; the model is loaded once for the same options."""
        if self._loaded is None or self._loaded[0] != options:
            self._loaded = options, load(self.workdir, **options)
        return recommend(self._loaded[1], users=users, histories=histories)

    def evaluate(self, split: str = "test", **options: Any) -> dict[str, Any]:
        """As `evaluate` does."""
        return evaluate(self.workdir, split=split, **options)

    def report(self) -> Path:
        """As `report` does."""
        return report(self.workdir)

    def export(self, output: str | Path, **options: Any) -> Path:
        """As `export` does."""
        return export(self.workdir, output, **options)

    def to_arrow(self) -> Any:
        """The model and its controls, a row each, with a column a metric."""
        import pyarrow as pa

        rows = {self["model"]: self["metrics"]} | self["controls"]
        named = {"model": list(rows)}
        return pa.table(named | {m: [row.get(m) for row in rows.values()] for m in self["metrics"]})

    def to_pandas(self) -> Any:
        """The same as a DataFrame, where pandas is installed.

        Raises:
          ValueError: where it is not.
        """
        return as_frame(self.to_arrow())

    def __repr__(self) -> str:
        metric = self["selected_by"].split()[-1]
        beside = ", ".join(
            f"{name} {values[metric]:.4f}"
            for name, values in self["controls"].items()
            if metric in values
        )
        return (
            f"<{self['model']} on {self['dataset']}: {metric} {self['metrics'][metric]:.4f}"
            f"{f' ({beside})' if beside else ''}, in {self.workdir}>"
        )


def train(
    model: str,
    interactions: Any,
    workdir: str | Path,
    *,
    settings: Settings | None = None,
    preset: str = "",
    backbone: str = "",
    progress: bool | None = None,
    log: pipeline.Log | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Fitted:
    """Trains a model and returns what `results.json` holds; the same call again continues a run.

    Args:
      model: name of a preset, as `bin/train --model` takes it; `list_models` names them.
      interactions: what `--data` takes, or a table with a column of users, one of items and, where
        there are some, of ratings and times: a DataFrame of pandas or polars, an arrow table, a
        structured array, or a mapping of names to arrays. A table is kept as WORKDIR.parquet, where
        later calls and the commands find it.
      workdir: where everything goes.
      settings: dotted fields with values of their types, {"train.num_epochs": 5,
        "data.item": "sku", "eval.ks": (5, 10)}; `settings` has those of a model.
      preset: take the settings published for this data set, or those of a json file.
      backbone: what a model of several phases starts from.
      progress: show a bar or a line an epoch; by default on a terminal and in a notebook.
      log: is told what happens, in words; by default they are printed where progress is shown.
      on_progress: is told the steps, in place of what shows them.

    Raises:
      ValueError: in one sentence, on data or settings that cannot be used.
      signals.Interrupted: after SIGINT or SIGTERM, with the state saved.
    """
    folder = Path(workdir)
    chosen, experiment = _chosen(model, interactions, folder, preset, backbone, settings)
    typed = chosen.typed(settings or {})
    run = runs.prepare(chosen.name, experiment, chosen.source, typed=typed)
    if progress is None:
        progress = sys.stdout.isatty() or "ipykernel" in sys.modules
    log = log or (print if progress else _nothing)
    for note in run.notes:
        log(note)
    if on_progress is None and progress:
        with shown(experiment) as tell:
            return Fitted(pipeline.train(run, folder, log=log, on_progress=tell), folder)
    tell = on_progress or _nothing
    return Fitted(pipeline.train(run, folder, log=log, on_progress=tell), folder)


def evaluate(
    workdir: str | Path,
    *,
    split: str = "test",
    settings: Settings | None = None,
    data: str | None = None,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a workdir, as `bin/evaluate` does; writes nothing.

    Args:
      workdir: what `train` left.
      split: "valid" or "test".
      settings: dotted fields, {"model.sampler.kind": "ddim", "model.sampler.steps": 10,
        "eval.seeds": 5}.
      data: where the interactions are now, if they were moved.

    Raises:
      ValueError: if there is no run, or on settings that do not fit it.
    """
    folder = Path(workdir)
    run = restore.reopen(folder, data=data, settings=settings or {})
    results = judging.evaluation(run, folder, split)[0]
    if run.experiment.eval.diffuses:
        results["diffusion"] = diffusing.of_run(run, folder, split)
    return results


def list_models() -> dict[str, str]:
    """What `train` takes for a model, each with a line that says what it is.

    >>> list_models()["dreamrec"][:27]
    'DreamRec (arXiv:2310.20453)'
    """
    return {name: about(name) for name in config.preset_names()}


def settings(model: str, dataset: str = "") -> dict[str, Any]:
    """The settings that a model has for a data set's name, by dotted field.

    >>> settings("dreamrec", "zhihu")["model.guidance_weight"], settings("sasrec")["eval.ks"]
    (4.0, (5, 10, 20, 50))

    Raises:
      ValueError: on an unknown model, with the nearest one.
    """
    return config.field_values(config.preset(model, dataset).experiment)


def compare(
    *workdirs: str | Path,
    metric: str | None = None,
    metrics: Sequence[str] = (),
    resamples: int = 2000,
) -> "Board":
    """The leaderboard of some finished runs, as `bin/compare` makes it.

    Args:
      *workdirs: of runs on the same split.
      metric: to sort by.
      metrics: columns.
      resamples: of the users, for the intervals.

    Raises:
      ValueError: if they cannot be compared.
    """
    read = [leaderboard.read(Path(folder)) for folder in workdirs]
    if isinstance(metrics, str):
        raise ValueError(f"metrics={metrics!r} is no list; write metrics=[{metrics!r}]")
    return Board(leaderboard.board(read, metrics, metric=metric, resamples=resamples))


class Board:
    """A leaderboard: `found` has its figures, best first."""

    def __init__(self, found: leaderboard.Board):
        self.found = found

    def to_arrow(self) -> Any:
        """A row an entry: its name, its seeds, and a column a metric with the ends of its 95 %."""
        import pyarrow as pa

        entries = self.found.entries
        columns: dict[str, list] = {
            "model": [entry.name for entry in entries],
            "seeds": [entry.seeds for entry in entries],
        }
        for name in self.found.metrics:
            columns[name] = [entry.means[name] for entry in entries]
            for end, place in (("low", 0), ("high", 1)):
                columns[f"{name} {end}"] = [entry.intervals[name][place] for entry in entries]
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """The same as a DataFrame, where pandas is installed.

        Raises:
          ValueError: where it is not.
        """
        return as_frame(self.to_arrow())

    def __repr__(self) -> str:
        return board_text.plain(self.found)


def report(workdir: str | Path) -> Path:
    """Writes the page of a finished run, as `bin/report` does, and returns its path.

    Raises:
      ValueError: if the run is not finished, or matplotlib is missing.
    """
    from jaxrec_diff.reporting import run_page

    return run_page.write(Path(workdir))


def tune(
    model: str,
    interactions: Any,
    workdir: str | Path,
    *,
    trials: int = 30,
    settings: Settings | None = None,
    preset: str = "",
    backbone: str = "",
    log: pipeline.Log | None = None,
) -> dict[str, Any]:
    """Searches for a model's settings, as `bin/tune` does; the same call again goes on.

    Args:
      model: as of `train`, as are all that are not named here.
      interactions: to be tuned on; the test split is never read.
      workdir: of the search.
      trials: in all.
      settings: dotted fields that keep their values.
      preset: as of `train`.
      backbone: as of `train`.
      log: is told what happens.

    Returns:
      The trials, best first, and under "preset" the file that `train(preset=...)` takes.

    Raises:
      ValueError: on what `train` refuses, or without optuna.
    """
    try:
        from jaxrec_diff.experiments import tuning
    except ImportError:
        raise ValueError("the search needs optuna: pip install 'jaxrec-diff[tune]'") from None
    folder = Path(workdir)
    chosen, experiment = _chosen(model, interactions, folder, preset, backbone, settings)
    fixed = tuple(name.replace("_", "-") for name in settings or {})
    plan = tuning.plan(chosen.name, experiment, chosen.source, folder, fixed=fixed)
    return tuning.summary(tuning.tune(plan, trials, log=log or _nothing), plan)


def export(
    workdir: str | Path,
    output: str | Path,
    *,
    k: int = 20,
    include_seen: bool = False,
    settings: Settings | None = None,
    data: str | None = None,
) -> Path:
    """Writes a trained model as a program that serves without this package, as `bin/export` does.

    Args:
      workdir: what `train` left.
      output: a new folder, which is returned.
      k: length of the lists.
      include_seen: items of a history may be recommended again.
      settings: dotted fields, {"model.sampler.steps": 10}.
      data: where the interactions are now, if they were moved.

    Raises:
      ValueError: if there is no run, or the folder is not empty.
    """
    from jaxrec_diff.inference import export as programs

    folder, new = Path(workdir), Path(output)
    run = restore.reopen(folder, data=data, settings=settings or {})
    programs.export(restore.restore(run, folder), new, k=k, include_seen=include_seen)
    return new


def _nothing(_: Any) -> None:
    pass


def _chosen(
    model: str,
    interactions: Any,
    folder: Path,
    preset: str,
    backbone: str,
    settings: Settings | None,
) -> tuple[config.Chosen, config.Experiment]:
    """The preset that is meant and its settings with those that were given."""
    named = {"model": model, "data": _source(interactions, folder)}
    given = {name: value for name, value in (("preset", preset), ("backbone", backbone)) if value}
    chosen = config.choose(named | given)
    return chosen, config.configure(chosen.settings.experiment, settings or {})


def _source(interactions: Any, workdir: Path) -> str:
    """What was given if it is a name; else the file that the table was written to."""
    if isinstance(interactions, str | Path):
        return str(interactions)
    import pyarrow.parquet as pq

    table = frames.as_table(interactions)
    path = workdir.with_name(workdir.name + ".parquet")
    if path.exists() and (workdir / "config.json").exists():
        if not pq.read_table(path).equals(table):
            raise ValueError(f"{workdir} holds a run on other interactions; take another workdir")
        return str(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    return str(path)
