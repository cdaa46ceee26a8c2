"""Systems with several phases: each is built from what the earlier ones exported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.ops import files


class Stage(NamedTuple):
    """One phase of a system."""

    name: str  # also its folder under the workdir
    build: Callable[[Any, dict[str, Any]], Any]  # dataset, exports so far -> what `fit` takes
    export: Callable[[Any, Any], dict[str, np.ndarray]]  # built, fitted -> arrays for later stages


def export_path(workdir: Path, name: str) -> Path:
    """Where a stage's export is."""
    return workdir / "stages" / name / "export.npz"


def run(
    stages: tuple[Stage, ...], dataset: Any, fit: Callable[[Any, Path], Any], workdir: Path
) -> Any:
    """Builds, fits and exports each stage in turn; returns what the last one fitted.

    The last stage exports nothing and works in `workdir` itself.

    Args:
      stages: the phases, first to last.
      dataset: handed to every `build`.
      fit: (built, folder) -> fitted; resumes from what it finds in the folder.
      workdir: exports go where `export_path` says.
    """
    arrays = exports(stages[:-1], dataset, fit, workdir)
    return fit(stages[-1].build(dataset, arrays), workdir)


def exports(
    stages: tuple[Stage, ...], dataset: Any, fit: Callable[[Any, Path], Any], workdir: Path
) -> dict[str, dict[str, np.ndarray]]:
    """What stages export, by their names.

    A stage whose export is on disk is not fitted again, so a run that was killed goes on in the
    stage that it was in.
    """
    made: dict[str, Any] = {}
    for stage in stages:
        path = export_path(workdir, stage.name)
        folder = path.parent
        if not path.exists():
            built = stage.build(dataset, made)
            arrays = stage.export(built, fit(built, folder))
            folder.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        with np.load(path) as stored:
            made[stage.name] = {name: stored[name] for name in stored.files}
    return made
