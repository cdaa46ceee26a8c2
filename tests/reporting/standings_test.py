"""Tables of a contest, word by word."""

import csv
import io

import numpy as np
import pytest

from jaxrec_diff.experiments import diffusing
from jaxrec_diff.reporting import leaderboard, parity, standings


def run(name, seed, values, seconds, **controls):
    told = {
        "model": name, "command": f"bin/train --model={name} --data=x --seed={seed}", "metrics": {},
        "protocols": {"official": {"metrics": {"recall@20": 0.09}}},
        "data_hash": "f" * 64, "protocol": "honest", "dataset": "clicks & taps", "seed": seed,
        "best_step": 30, "steps": 40, "device": "cpu", "commit": "abc",
        "train_seconds": seconds, "cpu_seconds": 2 * seconds, "control_seconds": {"ease": 21.0},
        "diagnostics": {"coverage@20": 0.25, "gini@20": 0.5},
        "controls": {"ease": {"trials": 7}, "popularity": {}},
    }  # fmt: skip
    each = {"ndcg@10": np.asarray(values, np.float32)}
    each |= {f"{k}:ndcg@10": np.asarray(v, np.float32) for k, v in controls.items()}
    return leaderboard.Run(
        name, f"runs/{name}-seed{seed}", name, told, np.arange(len(values)), each
    )


SERVED = {
    "parameters": 1234567, "reverse_steps": 50, "users_per_second": 300.0,
    "users_per_processor_second": 250.0, "device": "cpu",
}  # fmt: skip
CHANGED = {
    "metric": "ndcg@10",
    "rows": {
        name: {"ndcg@10": value, "overlap": 0.5, "steps": 50}
        for name, value in (
            (diffusing.OWN, 0.31), (diffusing.ONE_CALL, 0.32), (diffusing.WITHOUT, 0.11),
            (diffusing.ANSWER, 0.9),
        )
    },
    "draws": 0.25,
    "left_out": {},
}  # fmt: skip


@pytest.fixture
def told():
    low, high = [0.1, 0.2, 0.3, 0.2], [0.3, 0.4, 0.5, 0.4]
    runs = [
        run("dime_rec", 0, low, 10.0, ease=[0.2] * 4, popularity=[0.0, 0.1, 0.0, 0.1]),
        run("dime_rec", 1, high, 30.0),
        run("mf", 0, [0.1] * 4, 5.0),
    ]
    board = leaderboard.board(runs, resamples=200)
    beside = standings.Beside(
        {"dime_rec": 24, "mf": 24},
        {"ldiffrec seed 0": "this model needs users, and clicks has none"},
        ("mf seed 1", "sasrec serving", "sasrec seed 0", "slim classic", "ease classic"),
        {"dime_rec": SERVED, "mf": SERVED | {"reverse_steps": 0, "parameters": 77}},
        {"dime_rec": CHANGED},
    )
    return board, standings.rows(board, runs, beside)


def test_rows_hold_quality_and_cost(told):
    board, rows = told
    assert [(row.name, row.kind, row.seeds, row.trials) for row in rows] == [
        ("dime_rec", "model", 2, 24),
        ("ease", "control", 0, 7),
        ("mf", "model", 1, 24),
        ("popularity", "control", 0, 0),
        ("ldiffrec seed 0", "not run", 0, 0),
        ("sasrec", "not yet run", 0, 0),
        ("slim", "not yet run", 0, 0),
    ]
    first, mf = rows[0], rows[2]
    assert first.means["ndcg@10"] == pytest.approx(0.3)
    assert first.cost == standings.Cost(20.0, 40.0, 1234567, 50, 300.0, 250.0)
    assert rows[1].cost == standings.Cost(3.0) and mf.cost.steps == 0  # a control: of 7 trials
    assert first.diffusion == CHANGED and not mf.diffusion
    assert first.deviations["ndcg@10"] == pytest.approx(0.2 / 2**0.5)
    assert mf.deviations["ndcg@10"] is None and mf.difference == pytest.approx(-0.2)
    assert first.coverage == 0.25 and rows[1].coverage is None


def test_a_published_figure_stands_beside_ours(monkeypatch):
    monkeypatch.setattr(parity, "results_folder", lambda: None)
    runs = [
        run("mf", 0, [0.1] * 4, 5.0),
        run("mf", 1, [0.2] * 4, 5.0),
        run("unknown", 0, [0.1] * 4, 5.0),
    ]
    for each in runs:
        each.results["dataset"] = "ml-1m-noisy"
    board = leaderboard.board(runs, resamples=50)
    rows = {row.name: row for row in standings.rows(board, runs, standings.Beside())}
    mf = rows["mf"]
    # the last metric that may be compared
    assert mf.published.startswith("ml-1m-noisy recall@20: .0918") and mf.ours == 0.09
    assert mf.verdict == "reproduced" and "history are no candidates" in mf.official
    assert rows["unknown"].verdict == ""
    text = standings.markdown(board, [*rows.values()])
    assert "| mf | items of the history are no candidates" in text and "| reproduced |" in text
    assert "reproduced" in standings.html(board, [*rows.values()])
    for each in runs:
        each.results["dataset"] = "clicks"
    board = leaderboard.board(runs, resamples=50)
    rows = {row.name: row for row in standings.rows(board, runs, standings.Beside())}
    assert rows["mf"].verdict == "not run (no results of it here)" and rows["mf"].ours is None


def test_every_system_stands_beside_bars_under_its_own_rules():
    """Of two seeds the mean; the bars are those of the system's rules, so they may differ."""
    runs = [
        run("mf", 0, [0.1] * 4, 5.0),
        run("mf", 1, [0.2] * 4, 5.0),
        run("sasrec", 0, [0.3] * 4, 5.0),
    ]
    for each, own, bar in zip(runs, (0.5, 0.7, 0.4), (0.1, 0.1, 0.2), strict=True):
        each.results["protocols"]["official"] = {
            "metrics": {"ndcg@10": own}, "controls": {"popularity": {"ndcg@10": bar}},
        }  # fmt: skip
    board = leaderboard.board(runs, resamples=50)
    rows = {row.name: row for row in standings.rows(board, runs, standings.Beside())}
    assert rows["mf"].theirs == pytest.approx({"itself": 0.6, "popularity": 0.1})
    assert rows["sasrec"].theirs == {"itself": 0.4, "popularity": 0.2}
    text = standings.markdown(board, [*rows.values()])
    assert "| ndcg@10 here, so | popularity, so | transitions, so | published |" in text
    (line,) = [each for each in text.splitlines() if each.startswith("| mf | items of")]
    assert [cell.strip() for cell in line.split("|")][3:6] == ["0.6000", "0.1000", ""]
    head, *lines = csv.reader(io.StringIO(standings.csv(board, [*rows.values()])))
    told = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert float(told["mf"]["itself_ndcg@10_by_its_rules"]) == pytest.approx(0.6)
    assert told["sasrec"]["transitions_ndcg@10_by_its_rules"] == ""


def test_every_form_has_every_row(told):
    board, rows = told
    for write in (standings.plain, *standings.WRITERS.values()):
        text = write(board, rows)
        assert (
            write is standings.plain
            or write is standings.csv
            or "of 9" in write(board, rows, "of 9")
        )
        assert all(
            row.name.replace("_", "") in text.replace("\\", "").replace("_", "") for row in rows
        )
    table = list(csv.reader(io.StringIO(standings.csv(board, rows))))
    assert {len(line) for line in table} == {len(table[0])}
    line = dict(zip(table[0], table[1], strict=True))
    assert float(line["ndcg@10"]) == pytest.approx(0.3) and float(line["train_seconds"]) == 20.0
    assert (line["steps"], line["one call"], line["full chain"]) == ("50", "0.32", "")
    _, *tables, verdict = standings.markdown(board, rows).split("\n\n")
    assert len(tables) == 3  # then what the diffusion is worth, and published figures
    assert "| 20 | 40 | 1,234,567 | 50 | 250 |" in tables[0]
    assert tables[1].splitlines()[2].startswith("| dime_rec | ndcg@10 | 50 | 0.3100 |")
    assert verdict.startswith("dime_rec: ") and "one call is as good" in verdict
    for lines in (each.splitlines() for each in tables):
        assert {row.count("|") for row in lines} == {lines[0].count("|")}
    latex = standings.latex(board, rows)
    assert r"dime\_rec" in latex and r"\textbf{0.3000 $\pm$ 0.1414}" in latex
    assert latex.startswith("% clicks & taps")
    standing, changed = latex.split(r"\end{tabular}")[:2]
    for part, cells in ((standing, 12), (changed, 11)):
        assert {line.count("&") for line in part.splitlines() if line.endswith(r"\\")} == {cells}
    page = standings.html(board, rows)
    assert "Does it diffuse?" in page and "one call is as good" in page
    assert "clicks &amp; taps" in page and "<script>" in page and "src=" not in page
