"""Cuts of single sequences by hand."""

import dataclasses

import numpy as np
import pytest

from jaxrec_diff.data import splits
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.dataset import Sequences


def alone(times: list[int]) -> Sequences:
    """A user who has been at every time."""
    count = len(times)
    return Sequences(
        np.arange(1, count + 1), np.zeros(count, int), np.array(times), np.array([0, count])
    )


def test_interactions_at_the_moment_of_a_cut_belong_to_the_later_split():
    config = DataConfig(split="global_time", ratio=(0.4, 0.3, 0.3))
    times = [0, 1, 2, 4, 4, 5, 6, 7, 7, 9]  # the cuts are at 4 and at 7
    assert [int(at[0]) for at in splits.global_time(alone(times), config)] == [0, 3, 7, 10, 1]


def test_shares_are_rounded_down_where_they_are_not_whole_in_decimals():
    config = DataConfig(split="ratio", ratio=(0.42, 0.29, 0.29))
    # 100 * 0.29 is 28.999999999999996 in floating point
    for length, bounds in ((100, [0, 42, 71, 100]), (10, [0, 6, 8, 10])):
        cuts = splits.ratio(alone(list(range(length))), config)
        assert [int(at[0]) for at in cuts[:4]] == bounds


# Four users and the moments of what they did; half of all is before 3.5 or, here, before 4.
TIMES = {"a": [1, 2, 3, 4], "b": [2, 5], "c": [6, 7], "d": [1, 9]}
HALF = DataConfig(split="global_time", ratio=(0.5, 0.0, 0.5))


def asked(times: dict[str, list[int]], target: str, config: DataConfig = HALF):
    """(user, moments of the history, moments of the answers) of every test row, and who trains."""
    flat = np.array([time for own in times.values() for time in own])
    sizes = [len(own) for own in times.values()]
    owner = np.repeat(np.arange(len(times)), sizes)
    sequences = Sequences(flat, owner, flat, np.append(0, np.cumsum(sizes)))
    cuts = splits.global_time(sequences, config)
    rows, users = splits.queries(flat, cuts.start, cuts.valid_end, cuts.stop, target)
    names = [*times]
    trained = {names[user] for user in np.flatnonzero(cuts.trained() > cuts.start)}
    return [
        (names[user], flat[start:end].tolist(), flat[end:stop].tolist())
        for user, start, end, stop in zip(users, rows.start, rows.end, rows.stop, strict=True)
    ], trained


def test_one_target_after_a_cut_in_time():
    one = [("a", [1, 2, 3], [4]), ("b", [2], [5]), ("c", [6], [7]), ("d", [1], [9])]
    for target in ("first", "last", "random", "successive"):
        assert asked(TIMES, target) == (one, {"a"})  # b and d have one item before it
    # as a set, of those with a history before the cut
    assert asked(TIMES, "all")[0] == [one[0], one[1], one[3]]
    trained = asked(TIMES, "all", dataclasses.replace(HALF, min_train=1))[1]
    assert trained == {"a", "b", "d"}
    assert [row[0] for row in asked(TIMES | {"c": [6]}, "last")[0]] == ["a", "b", "d"]


def test_targets_further_behind_a_cut_see_what_came_before_them():
    times = {"a": [1, 2, 3, 5, 6, 8], "b": [1, 2, 3, 4], "c": [7, 8, 9]}
    config = dataclasses.replace(HALF, ratio=(6 / 13, 0.0, 7 / 13))  # at 4
    assert asked(times, "all", config)[0] == [("a", [1, 2, 3], [5, 6, 8]), ("b", [1, 2, 3], [4])]
    assert asked(times, "first", config)[0] == [
        ("a", [1, 2, 3], [5]), ("b", [1, 2, 3], [4]), ("c", [7], [8]),
    ]  # fmt: skip
    assert asked(times, "last", config)[0] == [
        ("a", [1, 2, 3, 5, 6], [8]), ("b", [1, 2, 3], [4]), ("c", [7, 8], [9]),
    ]  # fmt: skip
    each = [
        ("a", [1, 2, 3], [5]), ("a", [1, 2, 3, 5], [6]), ("a", [1, 2, 3, 5, 6], [8]),
        ("b", [1, 2, 3], [4]), ("c", [7], [8]), ("c", [7, 8], [9]),
    ]  # fmt: skip
    assert asked(times, "successive", config)[0] == each


def test_random_targets_are_uniform_and_of_the_seed():
    start = np.arange(0, 4000, 4)
    items = np.arange(4000)

    def drawn(seed):
        return splits.queries(items, start, start + 1, start + 4, "random", seed)[0].end - start

    found = drawn((0, 1))
    np.testing.assert_array_equal(found, drawn((0, 1)))
    assert (found != drawn((1, 1))).any() and (found != drawn((0, 0))).any()
    counts = np.bincount(found, minlength=4)
    assert counts[0] == 0 and (np.abs(counts[1:] - 1000 / 3) < 4 * (1000 * 2 / 9) ** 0.5).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target": "last"}, "data.target=last chooses among what follows a cut in time"),
        ({"split": "global_time", "history": "to_cut"}, "--data.target=last is not"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        DataConfig(**settings)
