"""What a split rests on, in numbers for the data card."""

from typing import Any

import numpy as np

from jaxrec_diff.data.splits import Cuts


def of_split(cuts: Cuts, users: np.ndarray, times: np.ndarray | None) -> dict[str, Any]:
    """Counts and shares of users' sequences and their cuts.

    Args:
      cuts: of the flat arrays.
      users: i32[nnz], non-decreasing.
      times: [nnz], rising within a user's part of a split; None if the order is that of the file.

    Returns:
      `without_history`: rows that are left out because nothing comes before them, by split.
      `tied_times`: share of interactions that another of the user has the very time of.
      `trained_later`: share of test rows whose answer is older than the last training interaction.
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
    }
    if times is None:
        return found
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    found["tied_times"] = float(np.mean(np.append(same, False) | np.append(False, same)))
    trained = np.flatnonzero(cuts.train_end > cuts.start)
    tested = np.flatnonzero((cuts.stop > cuts.valid_end) & (cuts.valid_end > cuts.start))
    if len(trained) and len(tested):
        last = times[cuts.train_end[trained] - 1].max()
        found["trained_later"] = float(np.mean(times[cuts.valid_end[tested]] < last))
    return found


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
    absent = card.get("without_history", {})
    if any(absent.values()):
        each = " and ".join(f"{count:,} {split}" for split, count in absent.items() if count)
        lines.append(f"left out {each} rows without a history")
    return lines
