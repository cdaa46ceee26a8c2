"""Data, ranking, metrics and controls against plain loops, and the published counts."""

import datetime as dt
import hashlib
import itertools
import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import pytrec_eval

from jaxrec_diff.batches import cut
from jaxrec_diff.data import filters, sources, splits, synthetic, times
from jaxrec_diff.data.card import render
from jaxrec_diff.data.columns import Columns
from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.dataset import Sequences
from jaxrec_diff.data.load import load
from jaxrec_diff.evaluation import baselines, config, metrics, popularity, topk
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.models import protocols
from jaxrec_diff.ops import ragged
from jaxrec_diff.ops.ragged import Ragged


def random_rows(seed=0, rows=40, items=9):
    rng = np.random.default_rng(seed)
    flat = rng.integers(1, items + 1, 200).astype(np.int32)
    end = rng.integers(0, 190, rows)
    start = np.maximum(end - rng.integers(0, 12, rows), 0)
    return Ragged(flat, *(x.astype(np.int32) for x in (start, end, end + rng.integers(1, 4, rows))))


def test_windows_are_the_last_items():
    data = random_rows()
    index = np.array([3, -1, 0, 7])
    query = cut.queries(data, index, max_len=5)
    answer = cut.answers(data, index, max_seen=12, max_relevant=3)
    example = cut.sequences(data, index, max_len=5)
    for place, row in enumerate(index):
        history, relevant = [], []
        if row >= 0:
            history = data.items[data.start[row] : data.end[row]].tolist()
            relevant = data.items[data.end[row] : data.stop[row]].tolist()
            assert example.target[place] == relevant[0]
        assert query.seq[place].tolist() == (history[-5:] + [0] * 5)[:5]
        assert answer.seen[place].tolist() == (history + [0] * 12)[:12]
        assert answer.relevant[place].tolist() == (relevant + [0] * 3)[:3]
    assert answer.weight.tolist() == example.weight.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("chunk", [None, 7, 16])
def test_top_is_a_full_sort(chunk):
    rng = np.random.default_rng(1)
    points = rng.integers(-2, 3, (6, 3)).astype(np.float32)
    table = rng.integers(-2, 3, (40, 3)).astype(np.float32)
    bias, allowed = rng.integers(0, 2, 40).astype(np.float32), rng.random(40) < 0.8
    seen = rng.integers(0, 41, (6, 5))
    got = topk.top(points, table, bias, k=7, seen=jnp.asarray(seen), allowed=allowed, chunk=chunk)
    for row in range(6):
        scores = points[row] @ table.T + bias
        order = [j for j in np.argsort(-scores, kind="stable") if allowed[j]]
        order = [j + 1 for j in order if j + 1 not in seen[row]][:7]
        assert got.items[row].tolist() == order
        np.testing.assert_array_equal(got.scores[row], scores[np.array(order) - 1])


def test_several_points_and_numbers_that_are_none():
    table = np.eye(4, dtype=np.float32)
    points = np.array([[[1, 0, 0, 0.5], [0, 2, 0, 0.0]]], np.float32)
    assert topk.top(points, table, k=4).items.tolist() == [[2, 1, 4, 3]]
    assert topk.top(points[:, 0] * np.nan, table, k=2).items.tolist() == [[0, 0]]
    assert topk.nearest(points, table).tolist() == [[1, 2]]


def test_no_array_of_users_by_items():
    big = jax.ShapeDtypeStruct((50_000, 4), jnp.float32)
    points = jax.ShapeDtypeStruct((512, 4), jnp.float32)
    compiled = jax.jit(lambda p, t: topk.top(p, t, k=10, chunk=2048)).lower(points, big).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 512 * 50_000 * 4 / 4


def test_metrics_of_hand():
    found = Top(jnp.array([[5.0, 4.0, 3.0, 2.0, 1.0]]), jnp.array([[9, 2, 7, 4, 1]]))
    got = metrics.per_user(found, jnp.array([[2, 4, 8]]), (1, 4))
    want = {
        "hr@1": 0,
        "hr@4": 1,
        "recall@4": 2 / 3,
        "precision@4": 2 / 4,
        "mrr@4": 1 / 2,
        "ndcg@4": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / math.log2(4)),
        "map@4": (1 / 2 + 2 / 4) / 3,
    }
    for name, value in want.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6)


def test_collapsed_scores_hit_nothing():
    found = topk.top(jnp.ones((3, 2)), jnp.ones((30, 2)), k=11)
    for values in metrics.per_user(found, jnp.array([[1], [2], [30]]), (5, 10)).values():
        assert values.tolist() == [0, 0, 0]


def test_metrics_agree_with_trec_eval():
    rng = np.random.default_rng(2)
    scores = rng.permuted(np.tile(np.arange(40.0), (25, 1)), axis=1).astype(np.float32)
    relevant = np.zeros((25, 6), np.int64)
    for row in range(25):
        count = rng.integers(1, 7)
        relevant[row, :count] = rng.choice(40, count, replace=False) + 1
    found = topk.top(jnp.asarray(scores), jnp.eye(40), k=11)
    got = metrics.per_user(found, jnp.asarray(relevant), (5, 10))
    judged = {str(u): {str(i): 1 for i in relevant[u] if i} for u in range(25)}
    run = {str(u): {str(j + 1): float(scores[u, j]) for j in range(40)} for u in range(25)}
    names = {"ndcg_cut.5,10", "recall.5,10", "P.5,10", "success.5,10", "map_cut.5,10"}
    theirs = pytrec_eval.RelevanceEvaluator(judged, names).evaluate(run)
    pairs = {"ndcg": "ndcg_cut", "recall": "recall", "precision": "P", "hr": "success"}
    for u in range(25):
        size = len(judged[str(u)])
        for k in (5, 10):
            for ours, other in pairs.items():
                np.testing.assert_allclose(
                    got[f"{ours}@{k}"][u], theirs[str(u)][f"{other}_{k}"], atol=1e-6
                )
            # theirs divides by the number of relevant items, ours by what a list of k can hold
            value = theirs[str(u)][f"map_cut_{k}"] * size / min(size, k)
            np.testing.assert_allclose(got[f"map@{k}"][u], value, atol=1e-6)


def test_lists_together():
    exposed = metrics.exposure(jnp.array([[1, 2], [1, 0], [3, 3]]), 2, 4, jnp.array([1.0, 1, 0]))
    assert exposed.tolist() == [2, 1, 0, 0]
    assert metrics.coverage(np.asarray(exposed)) == 0.5
    assert metrics.gini(np.ones(5)) == 0 and metrics.gini(np.array([0, 0, 0, 9])) == 0.75
    assert metrics.average_popularity(np.array([2, 1]), np.array([3, 9])) == 5


@pytest.mark.parametrize("mask_seen", [False, True])
def test_controls_are_their_definitions(mask_seen):
    train, queries = random_rows(3), random_rows(4)
    queries = queries._replace(items=train.items)
    train = train._replace(stop=train.end + 1)
    counts = np.bincount(train.items[train.end], minlength=10)[1:]
    allowed = np.arange(9) != 4
    got = popularity.lists(train, queries, counts, k=6, mask_seen=mask_seen, allowed=allowed)
    popular = sorted(range(1, 10), key=lambda i: (-counts[i - 1], i))
    after: dict[int, Counter] = {}
    for s, e in zip(train.start, train.end, strict=True):
        if e > s:
            after.setdefault(train.items[e - 1], Counter())[train.items[e]] += 1
    assert ("repeat_last" in got) != mask_seen
    for row, (s, e) in enumerate(zip(queries.start, queries.end, strict=True)):
        history = queries.items[s:e].tolist()
        follow = after.get(history[-1], Counter()) if history else Counter()
        orders = {
            "popularity": popular,
            "repeat_last": list(dict.fromkeys(history[::-1] + popular)),
            "transitions": sorted(popular, key=lambda i: -follow[i]),
        }
        for name, lists in got.items():
            want = [i for i in orders[name] if i != 5 and not (mask_seen and i in history)]
            assert lists.items[row].tolist() == (want + [0] * 6)[:6], name


def tiny_process():
    return synthetic.make_process(
        SyntheticConfig(num_users=1, num_items=6, num_interests=3, min_length=1, max_length=3,
                        num_successors=2)
    )  # fmt: skip


def chance(process, pair, history, item):
    """p(item | history, pair) from the process's definition, in plain Python."""
    a, b, c = process.shares

    def raw(j):
        last = history[-1] if history else None
        edge = 0.0
        if last is not None:
            edge = sum(
                p
                for s, p in zip(process.successors[last], process.successor_probs, strict=True)
                if s == j
            )
        taste = process.within[j] / 2 if process.group[j] in pair else 0.0
        return a * edge + b * taste + c * process.popularity[j]

    free = [j for j in range(6) if j not in history]
    return raw(item) / sum(raw(j) for j in free)


def test_the_law_by_enumeration():
    process = tiny_process()
    pairs = list(itertools.combinations(range(3), 2))
    joint: dict[tuple, float] = {}
    for pair in pairs:
        for sequence in itertools.permutations(range(6), 3):
            p = 1 / len(pairs)
            for place, item in enumerate(sequence):
                p *= chance(process, pair, sequence[:place], item)
            joint[sequence] = joint.get(sequence, 0.0) + p
    np.testing.assert_allclose(sum(joint.values()), 1.0, rtol=1e-12)
    for history in ((), *((first,) for first in range(6)), (4, 1)):
        padded = np.array([list(history) + [-1] * (3 - len(history))])
        got = synthetic.predictive(process, padded)[0]
        begun = [s for s in joint if s[: len(history)] == history]
        total = sum(joint[s] for s in begun)
        for j in range(6):
            want = sum(joint[s] for s in begun if s[len(history)] == j) / total
            np.testing.assert_allclose(got[j], want, atol=1e-12)
    best = sorted(synthetic.predictive(process, np.array([[4, 1]]))[0], reverse=True)
    one = Ragged(np.array([5, 2, 1]), np.array([0]), np.array([2]), np.array([3]))
    best_figures = synthetic.bayes_optimal(process, one, (2,))
    np.testing.assert_allclose(best_figures["hr@2"], best[0] + best[1])
    np.testing.assert_allclose(best_figures["ndcg@2"], best[0] + best[1] / math.log2(3))


def test_the_synthetic_data_are_those_that_results_were_measured_on():
    card = load("synthetic", DataConfig()).card
    assert card["hash"] == "55e3bbb12875f408c21fa5496a74466cb0af7543cc2d89519d07d0cfc888a5c8"


def test_users_follow_the_law_and_the_best_ranker_reaches_the_optimum():
    data = load("synthetic", DataConfig(synthetic=SyntheticConfig(num_users=4000)))
    want = synthetic.bayes_optimal(data.synthetic_process, data.test, (10,))
    hits = 0.0
    at = 0
    for histories in synthetic._histories(data.test):
        top = np.argsort(-synthetic.predictive(data.synthetic_process, histories), axis=1)[:, :10]
        truth = data.test.items[data.test.end[at : at + len(top)]] - 1
        hits += (top == truth[:, None]).any(1).sum()
        at += len(top)
    error = math.sqrt(want["hr@10"] * (1 - want["hr@10"]) / at)
    assert abs(hits / at - want["hr@10"]) < 4 * error
    beside = baselines.per_user(
        data.train, data.test, data.train_counts, config.EvalConfig(), protocols.HONEST
    )
    assert want["hr@10"] > 6 * beside["popularity"]["hr@10"].mean()


@pytest.mark.parametrize("rule", ["leave_one_out", "ratio", "global_time"])
def test_cuts_partition_every_sequence(rule):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, 50)
    offsets = np.append(0, np.cumsum(lengths))
    times = np.concatenate([np.sort(rng.integers(0, 100, n)) for n in lengths])
    items = rng.integers(1, 9, offsets[-1]).astype(np.int32)
    sequences = Sequences(items, np.repeat(np.arange(50), lengths), times, offsets)
    cuts, _ = splits.cut(sequences, DataConfig(split=rule))
    assert (cuts.start <= cuts.train_end).all() and (cuts.train_end <= cuts.valid_end).all()
    assert (cuts.valid_end <= cuts.stop).all() and (cuts.stop == offsets[1:]).all()
    if rule == "global_time":
        latest = max(
            times[s:e].max() for s, e in zip(cuts.start, cuts.train_end, strict=True) if e > s
        )
        assert all(
            times[e] > latest for e, s in zip(cuts.train_end, cuts.stop, strict=True) if s > e
        )
    if rule == "leave_one_out":
        assert (cuts.stop - cuts.valid_end == (lengths >= 3)).all()
        assert (cuts.valid_end - cuts.train_end == (lengths >= 3)).all()
    train = splits.examples(items, cuts, 2)
    want = [
        (s, p) for s, e in zip(cuts.start, cuts.train_end, strict=True) for p in range(s + 2, e)
    ]
    assert list(zip(train.start.tolist(), train.end.tolist(), strict=True)) == want


def test_ties_at_a_cut_of_time_belong_to_the_later_split():
    times = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8])
    sequences = Sequences(np.arange(1, 11), np.zeros(10, np.int32), times, np.array([0, 10]))
    cuts, _ = splits.cut(sequences, DataConfig(split="global_time", ratio=(0.5, 0.3, 0.2)))
    assert [int(part[0]) for part in cuts] == [0, 5, 8, 10, 1]
    times = np.array([0, 1, 2, 3, 4, 4, 6, 8, 8, 8])  # both cuts inside a tie
    cuts, _ = splits.cut(
        sequences._replace(times=times), DataConfig(split="global_time", ratio=(0.5, 0.4, 0.1))
    )
    assert [int(part[0]) for part in cuts] == [0, 4, 7, 10, 1]


def test_shares_are_counted_as_written():
    # 0.1 of 30, 0.7 of 10 and 0.6 of 5 fall below their whole number in floating point
    for length, ratio, want in (
        (30, (0.6, 0.1, 0.3), (18, 21, 30)),
        (100, (0.42, 0.29, 0.29), (42, 71, 100)),
        (10, (0.1, 0.6, 0.3), (1, 7, 10)),
    ):
        offsets = np.array([0, length])
        flat = np.arange(length)
        sequences = Sequences(flat + 1, np.zeros(length, np.int32), flat, offsets)
        cuts, _ = splits.cut(sequences, DataConfig(split="ratio", ratio=ratio))
        assert tuple(int(part[0]) for part in cuts[1:4]) == want


def test_k_core_and_repeats_against_loops():
    rng = np.random.default_rng(0)
    table = Columns(rng.integers(0, 30, 150), rng.integers(0, 30, 150), None, None)
    rows = list(zip(table.users.tolist(), table.items.tolist(), strict=True))
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        left = [(u, i) for u, i in rows if users[u] >= 3 and items[i] >= 4]
        if left == rows:
            break
        rows = left
    got = filters.k_core(table, 3, 4)
    assert list(zip(got.users.tolist(), got.items.tolist(), strict=True)) == rows and rows
    pairs = Columns(np.array([1, 1, 2, 1]), np.array([5, 6, 5, 5]), None, np.arange(4))
    assert filters.apply(pairs, DataConfig(dedup="first"))[0].times.tolist() == [0, 1, 2]
    assert filters.apply(pairs, DataConfig(dedup="last"))[0].times.tolist() == [1, 2, 3]
    again = Columns(np.array([1, 2, 1, 1]), np.array([5, 5, 5, 6]), None, np.arange(4))
    assert filters.apply(again, DataConfig(dedup_adjacent=True))[0].times.tolist() == [0, 1, 3]
    # the last item of one user is no repetition for the next
    others = Columns(np.array([1, 1, 2, 2]), np.array([5, 6, 6, 6]), None, np.arange(4))
    assert filters.apply(others, DataConfig(dedup_adjacent=True))[0].times.tolist() == [0, 1, 2]


def test_recent_keeps_the_last_of_every_user_against_a_loop():
    rng = np.random.default_rng(1)
    table = Columns(rng.integers(0, 9, 80), rng.integers(0, 30, 80), None, np.arange(80))
    kept, seen = [], Counter()
    for place in reversed(range(80)):
        seen[table.users[place]] += 1
        if seen[table.users[place]] <= 4:
            kept.append(place)
    assert 9 < len(kept) < 80
    got, log = filters.apply(table, DataConfig(recent=4))
    assert got.times.tolist() == kept[::-1] and log[-1]["filter"] == "data.recent=4"
    assert len(filters.apply(table, DataConfig(recent=99))[0].users) == 80


def test_recent_min_gives_users_their_own_lengths():
    owner = np.repeat(np.arange(4000), 50)
    table = Columns(owner, np.tile(np.arange(50), 4000), None, np.arange(len(owner)))
    got, log = filters.apply(table, DataConfig(recent=40, recent_min=3))
    assert log[-1]["filter"] == "data.recent=40 data.recent-min=3"
    sizes = np.bincount(got.users)
    # what is left of a user is its last items, without a gap
    place = np.arange(len(got.users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    assert (got.items == 50 - sizes[got.users] + place).all()
    assert sizes.min() == 3 and sizes.max() == 40
    for k in (3, 4, 6, 20):  # P(size <= k) = log((k + 1) / 3) / log(41 / 3)
        assert abs((sizes <= k).mean() - np.log((k + 1) / 3) / np.log(41 / 3)) < 0.03
    again, _ = filters.apply(table, DataConfig(recent=40, recent_min=3))
    assert (again.times == got.times).all()
    alike, _ = filters.apply(table, DataConfig(recent=5, recent_min=5))
    assert (np.bincount(alike.users) == 5).all()
    with pytest.raises(ValueError, match="data.recent-min must lie in .0, 5., got 6"):
        DataConfig(recent=5, recent_min=6)


ROWS = [("u1", "x", 5, 3), ("u1", "y", 4, 1), ("u2", "x", 1, 9), ("u1", "z", 3, 2),
        ("u2", "y", 2, 8), ("u2", "z", 5, 7)]  # fmt: skip


def write(folder, form):
    path = folder / f"clicks.{form}"
    names = ["user_id", "item_id", "rating", "timestamp"]
    if form == "parquet":
        columns = dict(zip(names, zip(*ROWS, strict=True), strict=True))
        pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), path)
    elif form == "npz":
        columns = dict(zip(names, zip(*ROWS, strict=True), strict=True))
        np.savez(path, **{k: np.array(v) for k, v in columns.items()})
    else:
        separator = {"csv": ",", "tsv": "\t", "inter": "\t", "dat": "::"}[form]
        header = {"inter": [f"{n}:token" for n in names], "dat": None}.get(form, names)
        lines = [separator.join(map(str, row)) for row in ROWS]
        path.write_text("\n".join(([separator.join(header)] if header else []) + lines) + "\n")
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "inter", "dat", "parquet", "npz"])
def test_every_format_reads_alike(tmp_path, form):
    data = load(str(write(tmp_path, form)), DataConfig(min_history=0))
    assert data.item_ids.tolist() == ["x", "y", "z"] and data.num_users == 2
    # in time order u1: y z x, u2: z y x; the last is test
    assert data.test.items.tolist() == [2, 3, 1, 3, 2, 1]
    assert data.test.end.tolist() == [2, 5] and data.valid.end.tolist() == [1, 4]
    assert data.name == "clicks"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("none.csv", None, "does not exist"),
        ("empty.csv", "", "is empty"),
        ("cols.csv", "x,y\n1,2\n", "no user column"),
        ("head.csv", "user_id,item_id\n", "no rows"),
        ("junk.parquet", "junk", "not a readable parquet"),
        ("short.csv", "user_id,item_id\n1,a\n", "leaves no"),
        ("nan.csv", "user_id,item_id,timestamp\n1,1,nan\n1,2,nan\n1,3,4\n", "66.7% of its 3 rows"),
        ("void.csv", "user_id,item_id,timestamp\n1,1,\n1,2,\n", "'timestamp' of .* no value"),
        ("inf.csv", "user_id,item_id,timestamp\n1,1,inf\n1,2,3\n", "timestamp inf in row 1"),
        ("odd.xyz", "1", "ending"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        load(str(tmp_path / name), DataConfig())
    assert "\n" not in str(caught.value)


def test_rows_that_lack_a_value_are_left_out_and_counted(tmp_path):
    """A file with holes gives what the file of its whole rows gives, bit by bit."""
    rng = np.random.default_rng(3)
    whole, holed, lacking = [], [], {"user": 0, "sku": 0, "event_time": 0}
    for user in range(40):
        for place in range(6):
            zone = ("Z", "+02:00", "-05:30")[rng.integers(3)]
            when = f"2026-03-01T{rng.integers(10, 24)}:{rng.integers(10, 60)}:05{zone}"
            row = [f"u-Zoë {user}" if user % 2 else "", f"SKU-{rng.integers(9)}", when]
            row[0] = row[0] or f"u{user}"
            price = str(place) if rng.random() < 0.5 else ""
            gone = rng.random(3) < (0.1, 0.05, 0.02)
            holed.append([*("" if g else v for g, v in zip(gone, row, strict=True)), price])
            if gone[1]:
                holed[-1][1] = ("", "NA", "null", '"  "')[lacking["sku"] % 4]
            for name, one in zip(lacking, gone, strict=True):
                lacking[name] += int(one)
            if not gone.any():
                whole.append([*row, price])
    for name, rows in (("whole", whole), ("holed", holed)):
        lines = ["user,sku,event_time,price", *(",".join(row) for row in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")
    want, got = (load(str(tmp_path / f"{name}.csv"), DataConfig()) for name in ("whole", "holed"))
    assert got.card["hash"] == want.card["hash"] and want.card["missing"] == {}
    assert all(lacking.values())
    assert got.card["missing"] == {
        "all": {"rows": 240, "left_out": 240 - len(whole), "by_column": lacking}
    }
    said = render(got.card)
    assert f"left out {240 - len(whole)} of 240 rows: no user in {lacking['user']}" in said
    with pytest.raises(ValueError, match=f"'sku' in {lacking['sku']}"):
        load(str(tmp_path / "holed.csv"), DataConfig(max_missing=0))
    # the order is that of time, whatever the zone
    order = {}
    for user, item, when, _ in whole:
        order.setdefault(user, []).append((dt.datetime.fromisoformat(when), item))
    for number, user in enumerate(got.user_ids):
        mine = [item for _, item in sorted(order[user], key=lambda pair: pair[0])]
        start = got.user_items.start[number]
        items = got.item_ids[got.user_items.items[start : start + len(mine)] - 1]
        assert items.tolist() == mine


def test_times_of_text_are_those_of_the_standard_library(tmp_path):
    """Zones, fractions and dates in one column, which arrow leaves as text."""
    texts = [
        "2026-03-01T12:00:00+02:00", "2026-03-01T10:30:00Z", "2026-03-01 10:15:00", "2026-03-01",
        "2026-03-01T10:30:00.25-05:30", "1969-12-31T23:59:59Z",
    ]  # fmt: skip
    want = [dt.datetime.fromisoformat(text) for text in texts]
    want = [(time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp() for time in want]
    table = {"user_id": [1] * 6, "item_id": range(6), "timestamp": texts}
    pq.write_table(pa.table({name: list(v) for name, v in table.items()}), tmp_path / "t.parquet")
    for some in ([0, 1, 2, 3, 4, 5], [1, 0], [2], [3, 2]):
        got = times.numbers(pa.array(np.array(texts)[some]), "a file", "timestamp")
        assert got.tolist() == [want[place] for place in some]
    got = sources.read(str(tmp_path / "t.parquet"), DataConfig()).tables["all"].times
    assert got.tolist() == want
    with pytest.raises(ValueError, match="neither a number nor a date"):
        times.numbers(pa.array(["2026-03-01", "soon"]), str(tmp_path), "timestamp")


def test_a_missing_value_costs_long_ids_no_digit(tmp_path):
    ids = [2**62 + 1, 2**62 + 2, 2**62 + 3]
    lines = [f"1,{ids[0]}", f"1,{ids[1]}", "1,", f"1,{ids[2]}", f",{ids[2]}", f"2,{ids[0]}"]
    (tmp_path / "long.csv").write_text("user_id,item_id\n" + "\n".join(lines) + "\n")
    pq.write_table(
        pa.table(
            {"user_id": [1, 1, 1, 1, None, 2], "item_id": [*ids[:2], None, ids[2], ids[2], ids[0]]}
        ),
        tmp_path / "long.parquet",
    )
    for form in ("csv", "parquet"):
        data = load(str(tmp_path / f"long.{form}"), DataConfig(min_history=0))
        assert data.item_ids.tolist() == ids and data.user_ids.tolist() == [1, 2]


def test_a_missing_rating_matters_where_ratings_do(tmp_path):
    rows = ["1,1,5", "1,2,", "1,3,4", "1,4,1", "1,5,3", "2,1,5"]
    (tmp_path / "rated.csv").write_text("user_id,item_id,rating\n" + "\n".join(rows) + "\n")
    path = str(tmp_path / "rated.csv")
    assert load(path, DataConfig(min_history=0)).card["filters"][0]["interactions"] == 6
    card = load(path, DataConfig(min_history=0, min_rating=3)).card
    assert [entry["interactions"] for entry in card["filters"]] == [5, 4]
    assert card["missing"]["all"]["by_column"] == {"rating": 1}


def test_the_card_says_which_column_might_have_been_the_time(tmp_path):
    (tmp_path / "a.csv").write_text("user,item,when\n1,1,5\n1,2,4\n1,3,1\n2,1,1\n")
    card = load(str(tmp_path / "a.csv"), DataConfig(min_history=0)).card
    assert card["time_order"] == "file order (data.timestamp can name a column: when)"


def test_the_card_counts_answers_that_were_never_trained(tmp_path):
    (tmp_path / "few.csv").write_text("user_id,item_id\n1,a\n1,b\n1,c\n2,a\n2,c\n2,b\n")
    card = load(str(tmp_path / "few.csv"), DataConfig(min_history=0)).card
    # only a is trained on; nobody's answer is a
    assert card["items_never_trained"] == 2
    assert card["answers_never_trained"] == {"valid": 1.0, "test": 1.0}
    (tmp_path / "more.csv").write_text("user_id,item_id\n1,a\n1,b\n1,c\n2,b\n2,c\n2,a\n")
    card = load(str(tmp_path / "more.csv"), DataConfig(min_history=0)).card
    assert card["answers_never_trained"] == {"valid": 0.5, "test": 0.5}


def test_the_card_counts_answers_that_are_repeated(tmp_path):
    # five to train on, two to validate, three to test
    lines = [f"1,{item}" for item in "abcdebcadd"] + [f"2,{item}" for item in "abcdebbabc"]
    (tmp_path / "again.csv").write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    settings = DataConfig(min_history=0, split="ratio", ratio=(0.5, 0.2, 0.3))
    data = load(str(tmp_path / "again.csv"), settings)
    answers = [data.test.items[a:b] for a, b in zip(data.test.end, data.test.stop, strict=True)]
    assert [len(part) - len(set(part.tolist())) for part in answers] == [1, 0]
    assert data.card["answers_repeated"] == {"valid": 1, "test": 1}
    assert "1 test answers repeat another one of their row and count once" in render(data.card)


def test_the_split_hash_is_of_the_numbers_alone(tmp_path):
    data = load(str(write(tmp_path, "csv")), DataConfig(min_history=0))
    total = hashlib.sha256()
    for part in (data.train, data.valid, data.test):
        for array in (part.items, part.start, part.end, part.stop):
            total.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    for ids in (b"x\ny\nz", b"u1\nu2"):
        total.update(f"|u1({len(ids)},)".encode() + ids)
    assert data.card["hash"] == total.hexdigest()


def test_a_filter_that_empties_the_data_is_named(tmp_path):
    with pytest.raises(ValueError, match="min-rating=9 removed all 6.*largest rating is 5"):
        load(str(write(tmp_path, "csv")), DataConfig(min_rating=9))


def test_zhihu_is_the_published_file(real_data):
    data = load(str(real_data / "zhihu"), DataConfig())
    assert (data.num_items, int((data.train_counts == 0).sum())) == (4838, 87)
    hashes = {
        "train": "721d6dc86be71512cc0e6699f05d293998286019fa79ecafff67e6dee5d4d11d",
        "valid": "47e38ea5424854f3387c47b754e06a4d27010b7fc3772898ab6e1b73e9159332",
        "test": "7071ec42b1ed783afe4a3df1501fef7c17593f3b2c66f9a84e934cfa643a5f0a",
    }
    for split, want in hashes.items():
        part = getattr(data, split)
        seq = np.asarray(ragged.window(jnp.asarray(part.items), part.start, part.end, 10))
        length = np.minimum(part.end - part.start, 10)
        rows = np.c_[np.where(seq > 0, seq - 1, 4838), np.maximum(length, 1),
                     part.items[part.end] - 1]  # fmt: skip
        assert hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest() == want, split
    histogram = np.bincount(data.test.end - data.test.start)
    assert histogram.tolist() == [1172, 1172, 1172, 868, 659, 494, 382, 309, 249, 212, 1222]


def test_zhihu_popularity_is_the_published_control(real_data):
    data = load(str(real_data / "zhihu"), DataConfig())
    rules = protocols.Rules(mask_seen=False, trained_only=False, multiple_of=100)
    for part, hr, ndcg in ((data.valid, 0.0190, 0.0075), (data.test, 0.0143, 0.0054)):
        found = baselines.per_user(data.train, part, data.train_counts, config.EvalConfig(), rules)
        got = baselines.means(found, config.EvalConfig(), rules)["popularity"]
        assert abs(got["hr@20"] - hr) < 6e-5 and abs(got["ndcg@20"] - ndcg) < 6e-5


def test_other_real_data_has_its_published_counts(real_data):
    beauty = load(str(real_data / "amazon-beauty" / "interactions.parquet"), DataConfig())
    assert (beauty.name, beauty.num_users, beauty.num_items) == ("amazon-beauty", 22363, 12101)
    assert len(beauty.train.start) == 131_413
    movies = load(str(real_data / "ml-1m" / "interactions.parquet"), DataConfig())
    assert len(movies.train.start) == 982_089 and movies.num_items == 3706
    small = load(str(real_data / "ml-100k" / "ml-100k.inter"), DataConfig())
    assert (small.name, small.num_users, small.num_items) == ("ml-100k", 943, 1682)
    pairs = load(str(real_data / "ml-1m-clean"), DataConfig())
    assert (pairs.num_users, pairs.num_items) == (5949, 2810)
