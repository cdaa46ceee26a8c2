"""What a split rests on, in numbers for the data card."""

from typing import Any

import numpy as np

from jaxrec_diff.data.splits import Cuts
from jaxrec_diff.ops import ragged

_FUTURE = 0.1  # share of training that is later than answers, from which on it is said
_FEW = 500  # test rows of a cut in time
_ABSENT = 0.3  # share of its users without a history


def of_split(
    cuts: Cuts,
    users: np.ndarray,
    items: np.ndarray,
    times: np.ndarray | None,
    answers: np.ndarray,
    asked: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Counts and shares of users' sequences and their cuts.

    Args:
      cuts: of the flat arrays.
      users: i32[nnz], non-decreasing.
      items: i32[nnz], from 1 on.
      times: [nnz], rising within a user's part of a split; None if the order is that of the file.
      answers: i32[N], places of the first answer of each test row.
      asked: users of the rows of "valid" and "test".

    Returns:
      `without_history`: users who are left out because nothing comes before what they would be
      asked for, by split; `asked_twice`: test rows beyond the first of their user; `not_trained`:
      users whose part is too short to be trained on, and their interactions.
      `tied_times`: share of interactions that another of the user has the very time of.
      `trained_later`: share of test rows whose answer is older than the last training interaction.
      `later_training`: share of training interactions that are later than the answer, a mean over
      test rows; `first_trained_later`: share of test answers whose item first occurs in training
      after them; `tied_answers`: share of test rows whose answer has the time of another item of
      the user; `test_span`: time from the first answer to the last, in the unit of the times. The
      answer is the first of a row.
    """
    bounds = {"valid": (cuts.train_end, cuts.valid_end), "test": (cuts.valid_end, cuts.stop)}
    someone = {split: np.unique(of) for split, of in asked.items()}
    short = (cuts.train_end - cuts.trained()).astype(np.int64)
    found: dict[str, Any] = {
        "without_history": {
            split: int((stop > end).sum()) - len(someone[split])
            for split, (end, stop) in bounds.items()
        },
        "asked_twice": len(asked["test"]) - len(someone["test"]),
        "not_trained": {"users": int((short > 0).sum()), "interactions": int(short.sum())},
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
    tied = np.append(same, False) | np.append(False, same)
    found["tied_times"] = float(np.mean(tied))
    place, _ = ragged.expand(cuts.start, cuts.trained() - cuts.start)
    if len(place) and len(answers):
        found["trained_later"] = float(np.mean(times[answers] < times[place].max()))
        found |= _leakage(items, times, place, answers)
        found["tied_answers"] = float(np.mean(tied[answers]))
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
    if card.get("asked_twice"):
        lines.append(
            f"{card['asked_twice']:,} test rows are of a user of another one: intervals and tests "
            "over rows take them for different users"
        )
    if card.get("not_trained", {}).get("users"):
        short = card["not_trained"]
        lines.append(
            f"{short['users']:,} users with {short['interactions']:,} interactions are not trained "
            "on: data.min-train asks for more before the first cut"
        )
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
