"""Lists for users and histories: the same as the ranker's, whatever the file and the batch."""

import gzip
import json

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import phases
from jaxrec_diff.inference import files, neighbours, program, recommend, recommender, types
from jaxrec_diff.inference import histories as inference_histories

# A model of each way to ask and to answer; the others' points are held to their batches elsewhere.
_FEW = ("dimerec", "sasrec", "ddrm", "ldiffrec", "giffcf", "adrec", "mf", "tdiffrec")


@pytest.mark.parametrize(
    "name",
    [n if n in _FEW else pytest.param(n, marks=pytest.mark.slow) for n in config.preset_names()],
)
def test_lists_are_those_of_the_model(name, untrained):
    """Raw histories, batches of 16 and the stand-in users give what the test split gives."""
    restored = untrained(name)
    phase, model, params, state = restored
    dataset, batcher = phase.dataset, phase.batcher
    rows = phases.scored_by(phase, "test")
    histories = [rows.items[a:b] for a, b in zip(rows.start, rows.end, strict=True)]
    index = np.arange(len(histories), dtype=np.int32)
    query = jax.jit(batcher.query)(batcher.splits["test"], index)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(phase.settings.seed), 3), 0)
    state = jax.jit(model.precompute)(params, state)
    points = np.asarray(jax.jit(model.sample)(params, state, key, query), np.float64)
    head = model.head(params, state)
    points = points[:, None] if points.ndim == 2 else points
    table = rank.item_rows(head)  # None where a point is the row of scores itself
    rows = np.eye(points.shape[-1], dataset.num_items) if table is None else np.asarray(table).T
    each = points @ rows.astype(np.float64)
    scores = each.max(1) if model.score_pooling == "best" else np.log(np.exp(each).sum(1))
    scores = scores if head.bias is None else scores + np.asarray(head.bias)[: scores.shape[1]]
    scores[:, dataset.train_counts == 0] = -np.inf
    for row, history in enumerate(histories):
        scores[row, history - 1] = -np.inf

    asked = recommender.of(restored, k=5, batch_size=16)
    raw = [[str(dataset.item_ids[item - 1]) for item in history] for history in histories]
    found = recommend.recommend(asked, histories=raw)
    assert len(found) == len(histories)
    for row, given in enumerate(found):
        got = np.searchsorted(dataset.item_ids, given.items)
        # where two items score the same to rounding, either order is right
        want = np.sort(scores[row])[::-1][:5]
        np.testing.assert_allclose(scores[row][got], want, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(given.scores, want, rtol=1e-4, atol=1e-5)
        assert len(set(given.items)) == 5 and not set(given.items) & set(raw[row])


def test_known_users_are_asked_with_all_they_did(clicks_run, clicks):
    rows = [line.split(",") for line in clicks.read_text().splitlines()[1:]]
    whole: dict[str, list] = {}
    for user, item, when, _ in sorted(rows, key=lambda row: row[2]):
        whole.setdefault(user, []).append((when, item))
    dataset = recommender.load(clicks_run).dataset
    histories = inference_histories.known_users(dataset)
    for number, user in enumerate(dataset.user_ids):
        got = dataset.item_ids[histories.items[histories.start[number] : histories.end[number]] - 1]
        assert got.tolist() == [item for _, item in whole[user]]
    found = recommend.recommend(clicks_run, users=["u-07", "nobody", "u-03"], k=40)
    assert [entry.user for entry in found] == ["u-07", "u-03"]
    for entry in found:
        assert not set(entry.items) & {item for _, item in whole[entry.user]}
    again = recommend.recommend(clicks_run, users=["u-07"], k=40, include_seen=True)
    assert set(again[0].items) >= {item for _, item in whole["u-07"]} & set(
        dataset.item_ids[dataset.train_counts > 0]
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"histories": ["shoe-01", "shoe-02"]},
            r"^histories\[0\]='shoe-01' is no list of item ids",
        ),
        ({"histories": "shoe-01"}, "^histories='shoe-01' is no list of histories"),
        ({"histories": [3]}, r"^histories\[0\]=3 is no list of item ids"),
        ({"users": "u-07"}, r"^users='u-07' is no list of ids of users; write users=\['u-07'\]$"),
        ({"users": 7}, "^users=7 is no list"),
        ({"users": ["u-07"], "histories": []}, "users or histories, not both"),
    ],
)
def test_a_value_where_a_list_belongs_is_refused(clicks_run, options, said):
    with pytest.raises(ValueError, match=said):
        recommend.recommend(clicks_run, **options)


def test_what_is_not_known_is_in_the_result(clicks_run):
    loaded = recommender.load(clicks_run, k=3)
    with pytest.raises(ValueError, match="^k=5 cannot change a recommender that is loaded; give"):
        recommend.recommend(loaded, users=["u-07"], k=5)
    users = recommend.recommend(loaded, users=["u-07", "nobody", 7])
    assert [entry.user for entry in users] == ["u-07"] and users.unknown == ["nobody", 7]
    asked = [["shoe-01", "???"], [], ["x", "y", "shoe-02"]]
    found = recommend.recommend(loaded, histories=asked)
    assert [entry.unknown for entry in found] == [["???"], [], ["x", "y"]]
    assert found.unknown == ["???", "x", "y"] and "unknown ['???', 'x', 'y']" in repr(found)
    table = found.to_arrow()
    assert table.column_names == ["user", "rank", "item", "score"] and table.num_rows == 9
    assert table["rank"].to_pylist() == [1, 2, 3] * 3
    assert table["item"].to_pylist() == [item for entry in found for item in entry.items]
    assert len(repr(found)) < 600


def test_items_that_nobody_chose_are_no_history(clicks_run):
    dataset = recommender.load(clicks_run).dataset
    made = np.zeros(len(dataset.user_items.items), bool)
    made[dataset.user_items.start[3] : dataset.user_items.start[3] + 2] = True
    marked = dataset._replace(user_rows=dataset.user_rows._replace(generated=made))
    before, after = (
        inference_histories.known_users(dataset),
        inference_histories.known_users(marked),
    )
    assert (after.start - before.start).nonzero()[0].tolist() == [3]
    assert after.start[3] == before.start[3] + 2 and (after.stop == before.stop).all()


def test_a_new_history_is_served_through_the_most_similar_user(untrained):
    asked = recommender.of(untrained("mf"), k=5)
    user_items = asked.dataset.user_items
    sets = [set(user_items.items[a:b].tolist()) for a, b in zip(*user_items[1:3], strict=True)]
    rng = np.random.default_rng(0)
    histories = [rng.choice(30, size, replace=False) + 1 for size in (1, 3, 8)] + [[4, 4, 4, 9]]
    names, offsets = pa.array(range(4)), np.cumsum([0] + [len(h) for h in histories])
    raw = pa.array(asked.dataset.item_ids[np.concatenate(histories) - 1])
    part, _ = inference_histories.encode(asked, names, raw, offsets)
    got = neighbours.stand_ins(asked.dataset, asked.owners, part)
    for history, user in zip(histories, got, strict=True):
        alike = [len(set(history) & owned) / max(len(owned), 1) ** 0.5 for owned in sets]
        assert user == int(np.argmax(alike))


def test_unknown_ids_are_skipped_and_an_unknown_history_gets_the_popular(clicks_run):
    with_unknown = [["shoe-01", "???", "shoe-02"], ["shoe-01", "shoe-02"], ["a", "b"], []]
    found = recommend.recommend(clicks_run, histories=with_unknown, k=4)
    # the draw of a row depends on its place, so the same history stands in the same place
    same = recommend.recommend(clicks_run, histories=[with_unknown[1], with_unknown[1]], k=4)
    assert [entry.items for entry in found[:2]] == [entry.items for entry in same]
    dataset = recommender.load(clicks_run).dataset
    counts = dict(zip(dataset.item_ids.tolist(), dataset.train_counts.tolist(), strict=True))
    for entry in found[2:]:
        assert entry.fallback and not found[0].fallback
        assert entry.scores == sorted(counts.values(), reverse=True)[:4]
        assert [counts[item] for item in entry.items] == entry.scores


def test_spread_is_the_share_that_two_draws_do_not_have_in_common():
    whole = [[1, 2, 3, 4], [1, 2, 7, 8], [9, 2, 1, 7]]
    short = [[5, 6, 0, 0], [6, 5, 0, 0], [1, 2, 0, 0]]
    lists = np.array([whole, short]).swapaxes(0, 1)
    got = program.spread(jax.numpy.asarray(lists))
    want = []
    for row in range(2):
        sets = [set(draw[row]) - {0} for draw in lists]
        pairs = [(0, 1), (0, 2), (1, 2)]
        want.append(1 - np.mean([len(sets[a] & sets[b]) / len(sets[a]) for a, b in pairs]))
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_every_format_of_histories_reads_the_same(tmp_path):
    want = [("ann", ["12", "7"]), ("bob", ["3"]), ("cy", [])]
    lines = [json.dumps({"user": user, "history": [int(i) for i in ids]}) for user, ids in want]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    users, histories = [user for user, _ in want], [[int(i) for i in ids] for _, ids in want]
    pq.write_table(pa.table({"user": users, "history": histories}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(
        "user,history\n" + "".join(f"{user},{' '.join(ids)}\n" for user, ids in want)
    )
    (tmp_path / "a.txt").write_text("12 7\n3\n\n")
    for ending in ("jsonl", "parquet", "csv", "txt"):
        parts = list(files.read_histories(tmp_path / f"a.{ending}", DataConfig()))
        got = []
        for part in parts:
            ids, bounds = part.ids.to_pylist(), part.offsets
            for row, name in enumerate(part.names.to_pylist()):
                got.append((name, [str(i) for i in ids[bounds[row] : bounds[row + 1]]]))
        names = [user for user, _ in want] if ending != "txt" else ["1", "2", "3"]
        assert got == [(name, ids) for name, (_, ids) in zip(names, want, strict=True)], ending
    (tmp_path / "b.csv").write_text("user_id,item_id,timestamp\nann,7,2\nbob,3,9\nann,12,1\n")
    (part,) = files.read_histories(tmp_path / "b.csv", DataConfig())
    assert part.ids.to_pylist() == [12, 7, 3] and part.offsets.tolist() == [0, 2, 3]
    assert part.left_out == 0


def test_rows_of_a_table_with_holes_are_left_out_and_counted(clicks_run, tmp_path, capsys):
    asked, output = tmp_path / "asked.csv", tmp_path / "top.jsonl"
    asked.write_text(
        "visitor,product,when\nann,shoe-01,2024-01-02\nann,,2024-01-03\n,shoe-02,2024-01-01\nbob,shoe-03,2024-01-09\n"
    )
    command = ["recommend", f"--workdir={clicks_run}", f"--histories={asked}", "--k=3"]
    assert cli.main([*command, f"--output={output}"]) == 0
    assert "left out 2 rows without a user, an item or a time" in capsys.readouterr().err
    assert cli.main([*command, f"--output={output}", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows_left_out"] == 2 and summary["histories"] == 2


@pytest.mark.parametrize(
    ("raw", "vocabulary", "want"),
    [
        (pa.array(["7", " 12", "x", "1e3", "", None]), pa.array([7, 12, 1000]), [1, 2, 0, 0, 0, 0]),
        (pa.array([7.0, 12.5, np.nan]), pa.array([7, 12]), [1, 0, 0]),
        (pa.array([7, 12]), pa.array(["12", "7"]), [2, 1]),
        (pa.array(["99999999999999999999"]), pa.array([7]), [0]),
        (pa.array(["007", "7", "-7", "+7"]), pa.array([7, -7]), [0, 1, 2, 0]),
        (pa.array([2**63 - 1]), pa.array(["9223372036854775807", "7"]), [1]),
        (pa.array(["9223372036854775807"]), pa.array([2**63 - 1]), [1]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array(["18446744073709551615"]), [1]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), [0]),
        (pa.array(["7"]).dictionary_encode(), pa.array([7]), [1]),
    ],
)
def test_raw_ids_of_other_types_are_found(raw, vocabulary, want):
    assert types.Vocabulary(vocabulary).encode(raw).tolist() == want


def test_files_of_histories_keep_the_spelling_of_ids(tmp_path):
    (tmp_path / "a.jsonl").write_text('["007", 7, 18446744073709551610, 1.50, null]\n')
    (tmp_path / "a.txt").write_bytes("007 7 1\u2028b\n".encode())
    (tmp_path / "a.csv").write_text("user,history\nann,\"[007, 7]\"\nbob,\"['a b', 'c']\"\n")
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.write('{"user": 12, "history": ["07"]}\n')
    (part,) = files.read_histories(tmp_path / "a.jsonl", DataConfig())
    assert part.ids.to_pylist() == ["007", "7", "18446744073709551610", "1.50", None]
    (part,) = files.read_histories(tmp_path / "a.txt", DataConfig())
    assert part.ids.to_pylist() == ["007", "7", "1\u2028b"] and len(part.offsets) == 2
    (part,) = files.read_histories(tmp_path / "a.csv", DataConfig())
    assert part.ids.to_pylist() == ["007", "7", "a b", "c"] and part.offsets.tolist() == [0, 2, 4]
    (tmp_path / "a.csv").write_text("user,history\nbob,\"['a b', 'c'\"\n")
    with pytest.raises(ValueError, match="which is no list of ids"):
        list(files.read_histories(tmp_path / "a.csv", DataConfig()))
    (part,) = files.read_histories(tmp_path / "b.jsonl.gz", DataConfig())
    assert part.names.to_pylist() == ["12"] and part.ids.to_pylist() == ["07"]


def test_files_of_users_keep_the_spelling_of_ids(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"user_id\n007\n7\n a b \n")
    assert files.read_users(tmp_path / "a.txt", DataConfig()).to_pylist() == ["007", "7", "a b"]
    (tmp_path / "a.csv").write_text("x,visitor id\n1,007\n2,\n3,7\n")
    assert files.read_users(tmp_path / "a.csv", DataConfig()).to_pylist() == ["007", "7"]
    pq.write_table(pa.table({"uid": [2**53 + 1, None]}), tmp_path / "a.parquet")
    assert files.read_users(tmp_path / "a.parquet", DataConfig()).to_pylist() == [2**53 + 1]
    (tmp_path / "b.csv").write_text("x,y\n1,007\n")
    with pytest.raises(ValueError, match="no user column: found 'x', 'y'"):
        files.read_users(tmp_path / "b.csv", DataConfig())


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_the_command_streams_to_a_file(clicks_run, tmp_path, capsys, ending):
    histories = [["shoe-01", "new"], ["shoe-02", "shoe-03"], ["none"]] * 30
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps(history) + "\n" for history in histories))
    output = tmp_path / f"top.{ending}"
    command = ["recommend", f"--workdir={clicks_run}", f"--histories={asked}", "--k=3"]
    more = [f"--output={output}", "--batch-size=32", "--seeds=2", "--json", "--sampler-steps=2"]
    assert cli.main([*command, *more]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["histories"], summary["unknown_ids"], summary["fallbacks"]) == (90, 60, 30)
    assert summary["examples"][:2] == ["new", "none"]
    found = recommend.recommend(
        clicks_run, histories=histories, k=3, seeds=2, sampler_steps=2, batch_size=90
    )
    if ending == "csv":
        lines = output.read_text().splitlines()
        assert len(lines) == 271
        got = [line.split(",")[2].strip('"') for line in lines[1:]]
        assert got == [item for entry in found for item in entry.items]
        return
    rows = (
        pq.read_table(output).to_pylist()
        if ending == "parquet"
        else [json.loads(line) for line in output.read_text().splitlines()]
    )
    assert [row["items"] for row in rows] == [entry.items for entry in found]
    np.testing.assert_allclose(
        [row["spread"] for row in rows], [e.spread for e in found], atol=1e-6
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name a file for the lists"),
        (["--users=a", "--history=b"], "ask one"),
        (["--output=top.xls"], "must end in .parquet"),
        (["--output=top.csv", "--histories=no.jsonl"], "does not exist"),
        (["--output=top.csv", "--k=0"], "--k must be a whole number of at least 1"),
        (["--output=top.csv", "--sampler=ddpn"], "sampler.kind"),
    ],
)
def test_refusals_are_one_line(clicks_run, flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recommend", f"--workdir={clicks_run}", *flags]) == 2
    said_there = capsys.readouterr().err
    assert said in said_there and said_there.count("\n") == 1
    assert not list(tmp_path.iterdir())
