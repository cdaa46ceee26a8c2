"""Whole users held out: a row a user, nobody in two splits."""

import collections

import numpy as np
import pytest

from jaxrec_diff.data.card import render
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load


def clicks(path, users=40, seed=0):
    rng = np.random.default_rng(seed)
    lines, history = ["user_id,item_id,timestamp"], {}
    for user in range(users):
        for place in range(rng.integers(1, 12)):
            item = int(rng.integers(0, 30))
            history.setdefault(f"u{user}", []).append(item)
            lines.append(f"u{user},{item},{place}")
    path.write_text("\n".join(lines) + "\n")
    return history


def rows_of(dataset, split):
    part = getattr(dataset, split)
    ids = dataset.item_ids
    return [
        (ids[part.items[s:e] - 1].tolist(), ids[part.items[e:t] - 1].tolist())
        for s, e, t in zip(part.start, part.end, part.stop, strict=True)
    ]


def test_rows_are_the_last_items_of_users_and_users_are_in_one_split(tmp_path):
    history = clicks(tmp_path / "a.csv")
    config = DataConfig(split="users", max_len=4, ratio=(0.7, 0.2, 0.1), split_seed=3)
    data = load(str(tmp_path / "a.csv"), config)
    order = np.random.default_rng(3).permutation(40)
    names = np.array(sorted(history))
    shares = {"train": order[:28], "valid": order[28:36], "test": order[36:]}
    first, seen = 0, []
    for split, users in shares.items():
        want = {
            name: (history[name][-5:-1], history[name][-1:])
            for name in names[users]
            if len(history[name]) > 1
        }
        rows = rows_of(data, split)
        owners = data.user_ids[first : first + len(rows)].tolist()
        assert dict(zip(owners, rows, strict=True)) == want
        assert len(owners) == len(want)
        first, seen = first + len(rows), seen + owners
    assert len(set(seen)) == len(seen) == data.num_users
    assert (
        data.valid_users.tolist()
        == list(range(len(data.train.start), first))[: len(data.valid.start)]
    )
    targets = [row[1][0] for row in rows_of(data, "train")]
    assert data.train_counts.tolist() == [targets.count(item) for item in data.item_ids]
    assert data.user_items is None
    short = sum(len(items) == 1 for items in history.values())
    assert short and sum(data.card["without_history"].values()) == short
    assert "rows without a history" in render(data.card)
    other = load(str(tmp_path / "a.csv"), DataConfig(split="users", split_seed=4))
    assert other.card["hash"] != data.card["hash"]


def test_users_as_files_give_them(tmp_path):
    for split, text in (
        ("train_data", "1 2 3\n4 5 6 7\n8\n"),
        ("valid_data", "1 5 2\n"),
        ("test_data", "9 1\n3 4\n"),
        ("data", "1 2 3\n"),
    ):
        (tmp_path / f"{split}.txt").write_text(text)
    config = DataConfig(split="users", columns="items", max_len=2)
    data = load(str(tmp_path), config)
    assert rows_of(data, "train") == [([1, 2], [3]), ([5, 6], [7])]
    assert rows_of(data, "valid") == [([1, 5], [2])]
    assert rows_of(data, "test") == [([9], [1]), ([3], [4])]
    with pytest.raises(ValueError, match="data.split=users"):
        load(str(tmp_path), DataConfig(columns="items"))


def test_a_user_of_two_files_is_refused(tmp_path):
    for split, user in (("train", "a"), ("valid", "b"), ("test", "a")):
        (tmp_path / f"{split}.csv").write_text(f"user_id,item_id\n{user},1\n{user},2\n")
    with pytest.raises(ValueError, match="holds user 'a' in two of its files"):
        load(str(tmp_path), DataConfig(split="users"))


def test_transitions_are_counted_all_along_the_rows(tmp_path):
    """Not only between the last two items of a training row, which alone are an example."""
    from jaxrec_diff import config
    from jaxrec_diff.experiments import judging, runs

    clicks(tmp_path / "a.csv", users=300)
    flags = ["--data.split=users", "--data.max-len=8", "--eval.protocol=official", "--eval.ks=3"]
    settings = config.parse(config.preset("sasrec", "a").experiment, [*flags, "--eval.metric=hr@3"])
    run = runs.prepare("sasrec", settings, str(tmp_path / "a.csv"), typed=())
    data, (phase,) = run.dataset, run.phases
    pairs, targets = collections.Counter(), collections.Counter()
    for history, answer in rows_of(data, "train"):
        row = [*history, *answer]
        pairs.update(zip(row[:-1], row[1:], strict=True))
        targets.update(answer)
    hits = []
    for history, (wanted,) in rows_of(data, "test"):
        # one that scores alike stands above
        score = {i: (pairs[history[-1], i], targets[i]) for i in data.item_ids.tolist()}
        above = [i for i in score if i != wanted and score[i] >= score[wanted]]
        hits.append(len(above) < 3)
    found = judging.baselines_per_user(phase, "test", {})["transitions"]["hr@3"]
    np.testing.assert_array_equal(found, hits)
    assert 0 < np.mean(hits) < 1


@pytest.mark.slow
def test_a_run_on_held_out_users(tmp_path):
    from jaxrec_diff import cli

    clicks(tmp_path / "a.csv")
    flags = ["--data.split=users", "--data.max-len=8", "--model.width=8", "--train.num-epochs=1",
             "--train.batch-size=8", "--eval.batch-size=16", "--devices=1"]  # fmt: skip
    run = [f"--data={tmp_path / 'a.csv'}", f"--workdir={tmp_path / 'run'}", *flags]
    assert cli.main(["train", "--model=sasrec", *run]) == 0
    users = tmp_path / "users.txt"
    users.write_text("u3\nu4\n")
    asked = [f"--workdir={tmp_path / 'run'}", f"--users={users}", "--k=2"]
    assert cli.main(["recommend", *asked, f"--output={tmp_path / 'top.jsonl'}"]) == 0
    assert '"user": "u3"' in (tmp_path / "top.jsonl").read_text()
