"""What a run's figures come to, in sentences: beside its controls, and whether it was done."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxrec_diff.evaluation import metrics
from jaxrec_diff.reporting import diffusion
from jaxrec_diff.reporting.leaderboard import Board, Difference


def sentences(
    board: Board, results: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]
) -> list[str]:
    """The verdict on a run.

    Args:
      board: of the run alone, beside its controls.
      results: what `results.json` holds.
      lines: of `metrics.jsonl`.
    """
    found = [beside(board), training(lines, results, board.metric)]
    best = results["share_of_optimum"].get(board.metric)
    if best is not None:
        found.append(f"{best:.0%} of what can be reached on this data.")
    if results.get("diffusion"):
        said = diffusion.verdict(results["diffusion"])
        found.append(said and f"{said[0].upper()}{said[1:]}.")
    found.append(lists(results["diagnostics"]))
    return [sentence for sentence in found if sentence]


def beside(board: Board) -> str:
    """A run against the best of its controls: the paired difference and its interval."""
    own = next(at for at, entry in enumerate(board.entries) if entry.seeds)
    controls = [at for at, entry in enumerate(board.entries) if not entry.seeds]
    metric, mean = board.metric, board.entries[own].means[board.metric]
    if not controls:
        return f"{metric} {mean:.4f}; no control was judged beside it."
    other = controls[0]  # entries are sorted, best first
    apart = _of_first(board, own, other)
    word = "not told apart from"
    if apart.low > 0 or apart.high < 0:
        word = "above" if apart.mean > 0 else "below"
    against = board.entries[other]
    lower = "; lower is better" if metrics.sign(metric) < 0 else ""
    return (
        f"{metric} {mean:.4f}, {word} {against.name} ({against.means[metric]:.4f}{lower}): paired "
        f"difference {apart.mean:+.4f}, 95 % {apart.low:+.4f} to {apart.high:+.4f}."
    )


def training(lines: Sequence[Mapping[str, Any]], results: Mapping[str, Any], metric: str) -> str:
    """Whether more epochs might help; "" where a single evaluation says nothing."""
    if len(lines) < 2:
        return ""
    epochs, last = results["num_epochs"], lines[-1]
    at = {line["step"]: line["epoch"] for line in lines}
    best = at.get(results["best_step"])
    if best is None:
        return ""
    if results["best_step"] == last["step"]:
        way = "rising" if metrics.sign(metric) > 0 else "falling"
        return (
            f"Validation {metric} was still {way} at the last of {epochs:g} epochs: give it more "
            "(--train.num-epochs)."
        )
    since = sum(line["step"] > results["best_step"] for line in lines)
    return (
        f"Validation {metric} was best at epoch {best:g} of {epochs:g}; the {since} evaluation"
        f"{'s' * (since > 1)} after it did not reach it."
    )


def lists(diagnostics: Mapping[str, Any]) -> str:
    """How much of the catalogue is shown at all."""
    shown = diagnostics.get("coverage@20")
    if shown is None:
        return ""
    return f"Its top-20 lists show {shown:.1%} of the items (gini {diagnostics['gini@20']:.3f})."


def _of_first(board: Board, own: int, other: int) -> Difference:
    """`own` minus `other`, where one of them is the first."""
    if other == 0:
        apart = board.differences[own]
        assert apart is not None
        return apart
    turned = board.differences[other]
    assert own == 0 and turned is not None
    return turned._replace(mean=-turned.mean, low=-turned.high, high=-turned.low)
