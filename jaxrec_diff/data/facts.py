"""What a split rests on, in numbers for the data card."""

from typing import Any

import numpy as np

from jaxrec_diff.data.splits import Cuts
from jaxrec_diff.ops import ragged

_FUTURE = 0.1  # share of training that is later than answers, from which on it is said
_FEW = 500  # test rows of a cut in time
_ABSENT = 0.3  # share of its users without a history


def of_split(
    cuts: Cuts, users: np.ndarray, items: np.ndarray, times: np.ndarray | None
) -> dict[str, Any]:
    """Counts and shares of users' sequences and their cuts.

    Args:
      cuts: of the flat arrays.
      users: i32[nnz], non-decreasing.
      items: i32[nnz], from 1 on.
      times: [nnz], rising within a user's part of a split; None if the order is that of the file.

    Returns:
      `without_history`: rows that are left out because nothing comes before them, by split.
      `tied_times`: share of interactions that another of the user has the very time of.
      `trained_later`: share of test rows whose answer is older than the last training interaction.
      `later_training`: share of training interactions that are later than the answer, a mean over
      test rows; `first_trained_later`: share of test answers whose item first occurs in training
      after them; `tied_answers`: share of test rows whose answer has the time of another item of
      the user; `test_span`: time from the first answer to the last, in the unit of the times. The
      answer is the first of a row.
    """
    found: dict[str, Any] = {
        "without_history": {
            "valid": int(
                ((cuts.valid_end > cuts.train_end) & (cuts.train_end <= cuts.start)).sum()
            ),
            "test": int(((cuts.stop > cuts.valid_end) & (cuts.valid_end <= cuts.start)).sum()),
        },
        "tied_times": None,
        "trained_later": None,
        "later_training": None,
        "first_trained_later": None,
        "tied_answers": None,
        "test_span": None,
    }
    if times is None:
        return found
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    found["tied_times"] = float(np.mean(np.append(same, False) | np.append(False, same)))
    trained = np.flatnonzero(cuts.train_end > cuts.start)
    tested = np.flatnonzero((cuts.stop > cuts.valid_end) & (cuts.valid_end > cuts.start))
    if len(trained) and len(tested):
        last = times[cuts.train_end[trained] - 1].max()
        answer = cuts.valid_end[tested]
        found["trained_later"] = float(np.mean(times[answer] < last))
        place, _ = ragged.expand(cuts.start[trained], (cuts.train_end - cuts.start)[trained])
        found |= _leakage(items, times, place, answer)
        tied = np.append(same, False) | np.append(False, same)
        found["tied_answers"] = float(np.mean(tied[answer]))
    return found


def _leakage(
    items: np.ndarray, times: np.ndarray, trained: np.ndarray, answer: np.ndarray
) -> dict[str, Any]:
    """What training holds of the time after test answers; both are places in the flat arrays."""
    order = np.sort(times[trained])
    earlier = np.searchsorted(order, times[answer], side="right")
    first = np.full(int(items.max()) + 1, np.inf)
    np.minimum.at(first, items[trained], times[trained].astype(np.float64))
    met = first[items[answer]]
    return {
        "later_training": float(np.mean(1.0 - earlier / len(order))),
        "first_trained_later": float(np.mean((met > times[answer]) & np.isfinite(met))),
        "test_span": float(times[answer].max() - times[answer].min()),
    }


def words(card: dict[str, Any]) -> list[str]:
    """The lines of the card that say so."""
    lines = []
    if card.get("tied_times"):
        lines.append(
            f"{card['tied_times']:.1%} of interactions have the time of another of their user: "
            "these are in the order of the file"
        )
    if card.get("trained_later"):
        lines.append(
            f"{card['trained_later']:.1%} of test rows are older than the last training "
            "interaction, so training sees what came later: --data.split=global_time does not"
        )
    if card.get("tied_answers"):
        lines.append(
            f"{card['tied_answers']:.1%} of test answers have the time of another item of their "
            "user: which of them is the answer is the order of the file"
        )
    if (card.get("later_training") or 0.0) > _FUTURE:
        lines.append(
            f"{card['later_training']:.1%} of training interactions are later than a test answer "
            f"on average, and {card['first_trained_later']:.1%} of answers are items that "
            "training first meets later: not the figures of a deployed system"
        )
    if "all interactions in time order" in card.get("split", "") and "rows" in card:
        lines += _few(card["rows"].get("test", 0), card.get("without_history", {}).get("test", 0))
    absent = card.get("without_history", {})
    if any(absent.values()):
        each = " and ".join(f"{count:,} {split}" for split, count in absent.items() if count)
        lines.append(f"left out {each} rows without a history")
    return lines


def _few(rows: int, left_out: int) -> list[str]:
    """What is said of a cut in time that leaves few to be judged."""
    lines = []
    if 0 < rows < _FEW:
        error = 0.5 / rows**0.5
        lines.append(f"{rows:,} test rows are few: the error of a share is up to {error:.1%}")
    if left_out > _ABSENT * (rows + left_out):
        lines.append(
            f"{left_out / (rows + left_out):.0%} of test users have no history before the cut"
        )
    return lines
