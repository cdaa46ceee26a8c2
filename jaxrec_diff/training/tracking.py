"""Figures of a run for other programs: TensorBoard event files, and Weights & Biases.

Both are off unless asked for, and neither is needed by anything else here.
"""

import importlib.util
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]  # of metrics.jsonl: step, epoch, time and figures


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Where figures go beside metrics.jsonl; changes no number."""

    tensorboard: bool = False
    """Write event files to WORKDIR/tensorboard (needs tensorboardX, no TensorFlow)."""
    wandb: str = ""
    """Send figures to this project of Weights & Biases (needs wandb); WANDB_MODE=offline keeps
    them here."""


def check(config: LogConfig) -> None:
    """Refuses what cannot be written here.

    Raises:
      ValueError: naming the package that is missing.
    """
    if config.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError("log.tensorboard=true needs tensorboardX: pip install 'jaxrec-diff[log]'")
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise ValueError(f"log.wandb={config.wandb} needs wandb: pip install wandb")


@contextmanager
def tracker(config: LogConfig, metrics: Path, settings: dict) -> Iterator[Callable[[Line], None]]:
    """Gives a function that is told of each line after it was added to the file `metrics`.

    Event files lie in the folder `tensorboard` beside it. They are made anew from the whole file at
    the first line, so that a run which was continued has each step once, whatever it had written.

    Args:
      config: what is asked for.
      metrics: the run's metrics.jsonl.
      settings: of the run, for Weights & Biases.
    """
    with ExitStack() as opened:
        sinks: list[Callable[[Line], None]] = []
        if config.tensorboard:
            sinks.append(opened.enter_context(_tensorboard(metrics)))
        if config.wandb:
            sinks.append(opened.enter_context(_wandb(config.wandb, metrics.parent, settings)))

        def emit(line: Line) -> None:
            for each in sinks:
                each(line)

        yield emit


def _figures(line: Line) -> dict[str, float]:
    return {k: v for k, v in line.items() if k not in ("step", "time") and v is not None}


@contextmanager
def _tensorboard(metrics: Path) -> Iterator[Callable[[Line], None]]:
    from tensorboardX import SummaryWriter

    folder = metrics.parent / "tensorboard"
    with ExitStack() as opened:
        writers: list[Any] = []

        def add(line: Line) -> None:
            for name, value in _figures(line).items():  # hr@10 becomes hr_10, as tags must
                writers[0].add_scalar(name, value, line["step"], walltime=line["time"])
            writers[0].flush()

        def emit(line: Line) -> None:
            if writers:
                return add(line)
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            writers.append(opened.enter_context(SummaryWriter(str(folder))))
            for text in metrics.read_text().splitlines():
                add(json.loads(text))
            return None

        yield emit


@contextmanager
def _wandb(project: str, folder: Path, settings: dict) -> Iterator[Callable[[Line], None]]:
    import wandb

    known = folder / "wandb-run"  # its id, so that a run which is continued stays one
    if not known.exists():
        known.write_text(secrets.token_hex(4))
    name = folder.resolve().name
    run = wandb.init(
        project=project,
        id=known.read_text(),
        resume="allow",
        name=name,
        dir=str(folder),
        config=settings,
    )
    try:
        # steps that a continued run makes again are the same figures, and are dropped there
        yield lambda line: run.log(_figures(line), step=line["step"])
    finally:
        run.finish()
