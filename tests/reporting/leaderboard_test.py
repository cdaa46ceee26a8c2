"""Leaderboards: tests and intervals against textbook numbers, and what may not be compared."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import cli
from jaxrec_diff.experiments import results as stored_results
from jaxrec_diff.reporting import board_text, leaderboard, statistics


def run(name, seed, values, *, settings="a", folder=None, **results):
    told = {"data_hash": "f" * 64, "protocol": "honest", "dataset": "clicks", "seed": seed}
    each = {metric: np.asarray(v, np.float32) for metric, v in values.items()}
    users = np.arange(len(next(iter(each.values()))))
    return leaderboard.Run(
        name, folder or f"{name}{seed}", name + settings, told | results, users, each
    )


def test_paired_t_of_the_sleep_data():
    """Student 1908: ten patients, two drugs; t = -4.0621 on 9 degrees of freedom."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    assert statistics.paired_t(first - second) == pytest.approx(0.002833, abs=5e-7)
    assert statistics.paired_t(np.zeros(5)) == 1.0


def test_holm_by_hand():
    # sorted .01 .02 .03 .04 times 4 3 2 1 is .04 .06 .06 .04, and none falls again
    np.testing.assert_allclose(statistics.holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.7, 0.6]) == [1.0, 1.0]


def test_bootstrap_has_the_mean_and_the_variance_of_its_law():
    """Var of a resampled mean is (1 / N) (1 / N) sum (x - mean)^2; columns share their users."""
    values = np.random.default_rng(0).exponential(size=(40, 2))
    values[:, 1] = 1.0 - values[:, 0]
    drawn = statistics.bootstrap(values, 20_000)
    np.testing.assert_allclose(drawn.mean(0), values.mean(0), atol=0.01)
    np.testing.assert_allclose(drawn.var(0), values.var(0) / 40, rtol=0.05)
    np.testing.assert_allclose(drawn.sum(1), 1.0)


def test_seeds_are_one_line_and_differences_are_paired():
    rng = np.random.default_rng(1)
    base = rng.random(200)
    better = np.clip(base + 0.05 + 0.01 * rng.normal(size=200), 0, 2)
    runs = [
        run("good", 0, {"ndcg@10": better}),
        run("good", 1, {"ndcg@10": better + 0.02}),
        run("plain", 0, {"ndcg@10": base, "popularity:ndcg@10": base * 0.5}),
    ]
    runs[0].values["popularity:ndcg@10"] = runs[2].values["popularity:ndcg@10"]
    board = leaderboard.board(runs, resamples=500)
    assert [entry.name for entry in board.entries] == ["good", "plain", "popularity"]
    assert [entry.seeds for entry in board.entries] == [2, 1, 0]
    first = board.entries[0]
    assert first.means["ndcg@10"] == pytest.approx(better.mean() + 0.01, abs=1e-6)
    assert first.deviations["ndcg@10"] == pytest.approx(0.02 / 2**0.5, abs=1e-6)
    low, high = board.entries[1].intervals["ndcg@10"]
    apart = board.differences[1]
    # unpaired, the two intervals overlap; paired over users the difference is beyond doubt
    assert high > first.intervals["ndcg@10"][0]
    assert apart.high < 0 and apart.p_holm < 1e-6
    assert apart.mean == pytest.approx(base.mean() - better.mean() - 0.01, abs=1e-6)
    assert apart.high - apart.low < (high - low) / 5
    table = board_text.markdown(board).splitlines()
    assert table[2].startswith("| entry | seeds | ndcg@10 |") and table[3].count("---") == 5
    assert len({line.count("|") for line in table[2:]}) == 1
    assert len(board_text.csv(board).splitlines()) == 4
    tex = board_text.latex(board).splitlines()
    assert tex[1] == r"\begin{tabular}{lrrrr}" and tex[-1] == r"\end{tabular}"
    assert {line.count("&") for line in tex if line.endswith(r"\\")} == {4}
    assert r"good & 2 & \textbf{" in tex[5] and r" $\pm$ 0.0141} &  &" in tex[5]
    assert board_text.ALIKE not in "".join(table)


def test_what_is_not_behind_the_first_is_marked():
    rng = np.random.default_rng(1)
    base = rng.random(200)
    runs = [run("one", 0, {"ndcg@10": base}, settings="a")]
    runs += [run("two", 0, {"ndcg@10": base + rng.normal(0, 0.5, 200) - 0.01}, settings="b")]
    runs += [run("low", 0, {"ndcg@10": base - 0.4}, settings="c")]
    board = leaderboard.board(runs, resamples=200)
    marked = [board_text.alike(apart) for apart in board.differences]
    assert marked == [False, True, False] and board.differences[1].p_holm >= 0.05
    second = board.entries[1].name
    assert f"| {second} † |" in board_text.markdown(board)
    assert rf"{second}$^{{\dagger}}$ &" in board_text.latex(board)
    assert board_text.plain(board).count("†") == 2


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (dict(data_hash="e" * 64), "has split hash eeeeeeeeeeee"),
        (dict(protocol="official"), "has protocol official"),
    ],
)
def test_other_splits_are_refused(other, said):
    values = {"ndcg@10": [0.0, 1.0]}
    with pytest.raises(ValueError, match=said):
        leaderboard.board([run("a", 0, values), run("b", 0, values, **other)])


def test_the_same_run_twice_is_refused():
    values = {"ndcg@10": [0.0, 1.0]}
    with pytest.raises(ValueError, match="seed 0 twice"):
        leaderboard.board([run("a", 0, values), run("a", 0, values)])


def test_a_run_keeps_how_often_answers_were_trained_on(clicks_run, clicks):
    rows = [line.split(",") for line in clicks.read_text().splitlines()[1:]]
    histories: dict[str, list] = {}
    for user, item, _, _ in sorted(rows, key=lambda row: row[2]):
        histories.setdefault(user, []).append(item)
    trained = [item for items in histories.values() for item in items[:-2]]
    table = pq.read_table(clicks_run / "per_user.parquet").to_pylist()
    assert len(table) == len(histories)
    for row in table:
        items = histories[row["user_id"]]
        assert row["answer_popularity"] == trained.count(items[-1])
        assert (row["history_length"], row["answers"]) == (len(items) - 1, 1)


def test_the_command_reads_what_training_left(clicks_run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(clicks_run, other, ignore=shutil.ignore_patterns("checkpoints"))
    config = json.loads((other / "config.json").read_text())
    del config["data"]["history"]  # as before there was such a setting
    (other / "config.json").write_text(json.dumps(config | {"seed": 1}))
    results = json.loads((other / "results.json").read_text())
    (other / "results.json").write_text(json.dumps(stored_results.sealed(results | {"seed": 1})))
    table = pq.read_table(other / "per_user.parquet")
    stored = {name: np.asarray(table[name]) for name in table.column_names}
    for metric, value in results["metrics"].items():
        assert stored[metric].mean() == pytest.approx(value, abs=1e-6)
    for metric in ("hr@10", "ndcg@20"):
        want = results["controls"]["popularity"][metric]
        assert stored[f"popularity:{metric}"].mean() == pytest.approx(want, abs=1e-6)
    pq.write_table(
        pa.table(stored | {"ndcg@10": 1 - stored["ndcg@10"]}), other / "per_user.parquet"
    )
    command = ["compare", str(clicks_run), str(other), f"--output={tmp_path / 'table'}"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert "0.5000" in out and max(map(len, out.splitlines()[:-1])) <= 80
    assert {path.suffix for path in tmp_path.glob("table.*")} == {".md", ".csv", ".html", ".tex"}
    text = (tmp_path / "table.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == [
        "Intervals", "Training", "Quality against cost", "Who is served well", "For a paper",
        "The runs",
    ]  # fmt: skip
    assert text.count("<svg") == 5 and "dimerec" in text and "first by" in text
    (other / "per_user.parquet").unlink()
    assert cli.main(command) == 2
    assert "bin/evaluate --workdir=" in capsys.readouterr().err
