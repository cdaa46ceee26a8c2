"""What a training run tells on its way."""

from typing import NamedTuple


def epoch_line(step: int, epoch: float, rate: float, metrics: dict[str, float], best: str) -> str:
    """One line of progress for a terminal or a log."""
    parts = [f"epoch {epoch:g}", f"step {step}", f"loss {metrics.get('loss', float('nan')):.4f}"]
    parts += [f"{name} {value:.4f}" for name, value in metrics.items() if name == best]
    return "  ".join([*parts, f"{rate:,.0f} examples/s"])


class NonFiniteLoss(RuntimeError):
    """The loss stopped being a number; `step` is the update at which it did."""

    def __init__(self, step: int, kept: int | None):
        self.step = step
        where = f"the last good checkpoint is step {kept}" if kept else "nothing was saved yet"
        super().__init__(f"the loss was not finite at step {step}; {where}")


class Stopped(RuntimeError):
    """Asked to stop for a `reason`, such as a signal's number; the state was saved."""

    def __init__(self, step: int, reason: int):
        self.reason = reason
        super().__init__(f"stopped at step {step}")


class Progress(NamedTuple):
    """An event of the loop, for a progress bar or a log."""

    kind: str  # "start" | "resume" | "damaged" | "compile" | "train" | "epoch" | "best lost"
    step: int  # "best lost": of the best state, which cannot be read; metrics has the "step" taken
    total_steps: int  # if patience never runs out
    epoch: float
    examples_per_second: float
    metrics: dict[str, float]
    phase: str = ""  # of a run with several, unless it is the last
    best_score: float = float("-inf")  # of all evaluations so far, higher is better
    bad_evals: int = 0  # evaluations since that one
