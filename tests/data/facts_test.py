"""What the card says of ties, of training that sees later events, of rows that are left out."""

import dataclasses

import numpy as np
import pytest

from jaxrec_diff.data import facts
from jaxrec_diff.data.card import render
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.inference import histories


def table(path, rows):
    lines = ["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_shares_against_loops(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        (int(rng.integers(9)), int(rng.integers(20)), int(rng.integers(25))) for _ in range(150)
    ]
    data = load(table(tmp_path / "a.csv", rows), DataConfig())
    tied = sum(
        any(user == other[0] and time == other[2] and place != at for at, other in enumerate(rows))
        for place, (user, _, time) in enumerate(rows)
    )
    assert data.card["tied_times"] == tied / 150 and tied
    by_user = {u: sorted(row[2] for row in rows if row[0] == u) for u in range(9)}
    last = max(times[-3] for times in by_user.values())
    older = np.mean([times[-1] < last for times in by_user.values()])
    assert data.card["trained_later"] == older
    said = render(data.card)
    assert f"{tied / 150:.1%} of interactions have the time of another" in said
    cut = load(table(tmp_path / "b.csv", rows), DataConfig(split="global_time"))
    assert not cut.card["trained_later"]


def test_what_training_holds_of_the_future_against_loops(tmp_path):
    rng = np.random.default_rng(1)
    rows = [(u, int(rng.integers(30)), int(rng.integers(40))) for u in range(12) for _ in range(9)]
    card = load(table(tmp_path / "a.csv", rows), DataConfig()).card
    by_user = {u: [row for row in rows if row[0] == u] for u in range(12)}
    for each in by_user.values():
        each.sort(key=lambda row: row[2])
    train = [row for each in by_user.values() for row in each[:-2]]
    answers = [each[-1] for each in by_user.values()]
    later = [np.mean([time > answer[2] for _, _, time in train]) for answer in answers]
    assert card["later_training"] == pytest.approx(np.mean(later)) and 0 < np.mean(later)
    met = {}
    for _, item, time in train:
        met[item] = min(time, met.get(item, time))
    first = [item in met and met[item] > time for _, item, time in answers]
    assert card["first_trained_later"] == pytest.approx(np.mean(first)) and any(first)
    tied = [sum(time == other for _, _, other in by_user[user]) > 1 for user, _, time in answers]
    assert card["tied_answers"] == pytest.approx(np.mean(tied)) and any(tied)
    assert card["test_span"] == max(a[2] for a in answers) - min(a[2] for a in answers)


def test_movielens_is_as_measured_elsewhere(real_data):
    card = load(str(real_data / "ml-100k" / "ml-100k.inter"), DataConfig()).card
    assert card["later_training"] == pytest.approx(0.413, abs=5e-4)
    assert card["first_trained_later"] == pytest.approx(0.0106, abs=5e-5)
    assert card["tied_answers"] == pytest.approx(0.440, abs=5e-4)
    assert card["test_span"] / 86_400 == pytest.approx(214, abs=0.5)
    said = render(card)
    assert "41.3% of training interactions are later than a test answer" in said
    assert "44.0% of test answers have the time of another item" in said


def test_a_cut_in_time_says_when_few_are_judged():
    card = {"split": "80/10/10 of all interactions in time order", "rows": {"test": 166}}
    card["without_history"] = {"valid": 0, "test": 76}
    said = facts.words(card)
    assert "166 test rows are few: the error of a share is up to 3.9%" in said
    assert "31% of test users have no history before the cut" in said
    card["rows"]["test"] = 4000
    assert len(facts.words(card)) == 1  # those left out
    assert len(facts.words(card | {"split": "as given", "rows": {"test": 9}})) == 1


def test_training_that_sees_later_events_is_said(tmp_path):
    rows = [("a", item, item) for item in range(4)] + [("b", item, 10 + item) for item in range(4)]
    data = load(table(tmp_path / "a.csv", rows), DataConfig())
    assert data.card["trained_later"] == 0.5 and data.card["tied_times"] == 0
    assert "50.0% of test rows are older than the last training interaction" in render(data.card)


def test_rows_without_a_history_are_counted(tmp_path):
    for split, rows in (
        ("train", [("a", 1, 1), ("a", 2, 2), ("b", 1, 1), ("b", 3, 2)]),
        ("valid", [("a", 3, 3), ("n", 1, 3)]),
        ("test", [("a", 4, 4), ("m", 2, 3), ("o", 2, 3), ("n", 2, 5)]),
    ):
        table(tmp_path / f"{split}.csv", rows)
    card = load(str(tmp_path), DataConfig()).card
    assert card["without_history"] == {"valid": 1, "test": 2}
    assert card["rows"] == {"train": 2, "valid": 1, "test": 2}
    assert "left out 1 valid and 2 test rows without a history" in render(card)


def test_repeated_answers_are_counted(tmp_path):
    rows = [(user, 1 + place % 3, place) for user in "ab" for place in range(10)]
    card = load(
        table(tmp_path / "a.csv", rows), DataConfig(split="ratio", ratio=(0.4, 0.2, 0.4))
    ).card
    # of four test answers 1 1 2 3 or the like, one is there twice
    assert card["answers_repeated"] == {"valid": 0, "test": 2}
    assert "2 test answers repeat another one of their row" in render(card)


@pytest.mark.parametrize("split", ["leave_one_out", "ratio"])
def test_answers_that_a_history_has_against_a_loop(tmp_path, split):
    rng = np.random.default_rng(1)
    rows = [(int(rng.integers(12)), int(rng.integers(9)), place) for place in range(150)]
    data = load(table(tmp_path / "a.csv", rows), DataConfig(split=split, ratio=(0.6, 0.2, 0.2)))
    for name, part in (("valid", data.valid), ("test", data.test)):
        again = [
            answer in part.items[start:end]
            for start, end, stop in zip(part.start, part.end, part.stop, strict=True)
            for answer in part.items[end:stop]
        ]
        assert data.card["answers_in_history"][name] == np.mean(again) and 0 < np.mean(again) < 1


def test_files_without_times_have_no_ties(tmp_path):
    (tmp_path / "a.csv").write_text("user,item\n" + "".join(f"{n % 2},{n}\n" for n in range(9)))
    card = load(str(tmp_path / "a.csv"), DataConfig()).card
    assert card["tied_times"] is card["trained_later"] is None and facts.words(card) == []


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("a", place, place) for place in range(5)], "holds one user, 'a'"),
        ([(user, 1, place) for user in "ab" for place in range(5)], "holds one item, '1'"),
    ],
)
def test_nothing_to_rank(tmp_path, rows, said):
    for split in ("leave_one_out", "ratio"):
        with pytest.raises(ValueError, match=said):
            load(table(tmp_path / "a.csv", rows), DataConfig(split=split))


def timed(path, seed=0, users=40, most=12):
    rng = np.random.default_rng(seed)
    rows = [
        (u, int(rng.integers(25)), int(rng.integers(1000)))
        for u in range(users)
        for _ in range(int(rng.integers(1, most)))
    ]
    return table(path, rows), rows


@pytest.mark.parametrize("target", ["all", "first", "last", "random", "successive"])
def test_nothing_after_the_cut_is_trained_or_counted(tmp_path, target):
    """Training is that of a data set from which everything after the cut was deleted."""
    source, rows = timed(tmp_path / "a.csv")
    config = DataConfig(split="global_time", ratio=(0.6, 0.2, 0.2), target=target)
    data = load(source, config)
    moment = sorted(time for _, _, time in rows)[round(0.6 * len(rows))]
    by_user = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        if time < moment:
            by_user.setdefault(user, []).append(item)
    by_user = {user: items for user, items in by_user.items() if len(items) >= 2}
    counts = np.zeros(25, int)
    for items in by_user.values():
        np.add.at(counts, items, 1)
    kept = {int(raw): int(n) for raw, n in zip(data.item_ids, data.train_counts, strict=True)}
    assert kept == {raw: int(counts[raw]) for raw in kept}
    own = data.user_items
    for user, start, end in zip(data.user_ids, own.start, own.end, strict=True):
        raw = [int(data.item_ids[item - 1]) for item in own.items[start:end]]
        assert raw == by_user.get(int(user), [])
    prefixes = [own[:n] for _, own in sorted(by_user.items()) for n in range(1, len(own))]
    train = data.train
    assert [
        [int(data.item_ids[item - 1]) for item in train.items[start:end]]
        for start, end in zip(train.start, train.end, strict=True)
    ] == prefixes
    # no test answer is older than anything trained, and whole histories are known to serving
    assert data.card["trained_later"] == 0 == data.card["later_training"]
    whole = histories.known_users(data)
    assert (whole.end - whole.start).sum() == len(rows)
    assert data.card["not_trained"]["users"] == sum(
        1 for user in range(40)
        if 0 < sum(u == user and t < moment for u, _, t in rows) < 2
    )  # fmt: skip


@pytest.mark.parametrize("target", ["first", "last", "random", "successive"])
def test_histories_up_to_the_cut_hold_nothing_after_it(tmp_path, target):
    """The answers of the rows with a history before the cut, each asked from that alone."""
    source, rows = timed(tmp_path / "a.csv", users=80, most=5)
    config = DataConfig(split="global_time", ratio=(0.6, 0.2, 0.2), target=target)
    whole = load(source, config)
    found = load(source, dataclasses.replace(config, history="to_cut"))
    times = sorted(time for _, _, time in rows)
    for split, users, share in (("valid", "valid_users", 0.6), ("test", "test_users", 0.8)):
        moment, before = times[round(share * len(rows))], {}
        for user, item, time in sorted(rows, key=lambda row: row[2]):
            if time < moment:
                before.setdefault(user, []).append(item)

        def told(data, split=split, users=users):
            part = getattr(data, split)
            raw = data.item_ids[part.items - 1]
            return [
                (int(data.user_ids[user]), raw[start:end].tolist(), raw[end:stop].tolist())
                for user, start, end, stop in zip(
                    getattr(data, users), part.start, part.end, part.stop, strict=True
                )
            ]

        want = [(u, before[u], answer) for u, _, answer in told(whole) if u in before]
        assert told(found) == want and 0 < len(want) < len(told(whole))
    # what is said of answers is of those that are asked for
    assert found.card["without_history"]["test"] > whole.card["without_history"]["test"]
    assert "from the history up to that cut" in found.card["split"]
    np.testing.assert_array_equal(found.train_counts, whole.train_counts)


def test_what_follows_the_cut_moves_no_parameter(tmp_path):
    source, rows = timed(tmp_path / "a.csv")
    config = DataConfig(split="global_time", ratio=(0.6, 0.2, 0.2), target="last")
    moment = sorted(time for _, _, time in rows)[round(0.8 * len(rows))]
    later = [row for row in rows if row[2] >= moment]
    rng = np.random.default_rng(3)
    mixed = [
        (row[0], int(item), row[2])
        for row, item in zip(later, rng.permutation([row[1] for row in later]), strict=True)
    ]
    other = table(tmp_path / "b.csv", [row for row in rows if row[2] < moment] + mixed)
    first, second = load(source, config), load(other, config)
    for part in ("start", "end", "stop"):
        for split in ("train", "valid"):
            np.testing.assert_array_equal(
                getattr(getattr(first, split), part), getattr(getattr(second, split), part)
            )
    np.testing.assert_array_equal(first.train_counts, second.train_counts)
    assert first.card["hash"] != second.card["hash"]


def test_rows_of_a_user_who_is_asked_twice_are_told(tmp_path):
    source, _ = timed(tmp_path / "a.csv")
    card = load(source, DataConfig(split="global_time", target="successive")).card
    assert card["asked_twice"] > 0
    assert f"{card['asked_twice']:,} test rows are of a user of another one" in render(card)
    assert "each item after a cut asked for in turn" in card["split"]
    assert "not trained on: data.min-train asks for more" in render(card)
    with pytest.raises(ValueError, match="leaves no valid row"):
        load(source, DataConfig(split="global_time", ratio=(1.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="data.split=ratio has none"):
        DataConfig(split="ratio", target="last")


@pytest.mark.parametrize(
    ("ratio", "train", "asked", "without", "never"),
    [  # counted elsewhere by the rules of "Time to Split" at q = .9, .95 and .8 twice over
        ((0.81, 0.09, 0.1), (80_999, 760, 1625), (175, 166), 76, 0.0130),
        # .8 and .95 cut inside a moment: 6 and 7 interactions at it belong to the later split here
        ((0.72, 0.08, 0.2), (72_001 - 6, 689, 1591), (137, 301), 192, None),
        ((0.9025, 0.0475, 0.05), (90_255 - 7, 866, 1639), (75, 113), 30, None),
    ],
)
def test_a_cut_in_time_of_movielens_is_as_counted_elsewhere(
    real_data, ratio, train, asked, without, never
):
    source = str(real_data / "ml-100k" / "ml-100k.inter")

    def data(target):
        return load(source, DataConfig(split="global_time", ratio=ratio, target=target))

    last, each = data("last"), data("successive")
    own = last.user_items.end - last.user_items.start
    assert (own.sum(), (own > 0).sum(), (last.train_counts > 0).sum()) == train
    assert (len(last.valid_users), len(last.test_users)) == asked
    assert data("all").card["without_history"]["test"] == without
    if never:  # each of those without a history gives its first item to it
        assert len(each.test_users) == 10_000 - without
        assert each.card["answers_never_trained"]["test"] == pytest.approx(never, abs=5e-5)
