"""Standings kept as a file: told again as they were, and what they say in sentences."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from jaxrec_diff.docs import boards, systems
from jaxrec_diff.experiments import contest, diffusing
from jaxrec_diff.reporting import leaderboard, records, standings

CONTEST = contest.Contest(
    "clicks.csv", ("flow", "sasrec"), 2, contest.budget("30"), (), ("--eval.protocol=honest",),
    Path("board"), True,
)  # fmt: skip


def run(name, seed, values, best_step=30, **controls):
    told = {
        "model": name, "command": f"bin/train --model={name} --seed={seed}", "metrics": {},
        "protocols": {}, "data_hash": "f" * 64, "protocol": "honest", "dataset": "clicks",
        "seed": seed, "train_seconds": 12.0, "cpu_seconds": 20.0, "control_seconds": {},
        "diagnostics": {"coverage@20": 0.25, "gini@20": 0.5}, "controls": {"ease": {"trials": 7}},
        "best_step": best_step, "steps": 40, "device": "cpu", "commit": f"c{seed}",
        "versions": {"jax": "1"}, "split_rule": "by moon",
    }  # fmt: skip
    each = {"ndcg@10": np.asarray(values, np.float32)}
    each |= {f"{k}:ndcg@10": np.asarray(v, np.float32) for k, v in controls.items()}
    return leaderboard.Run(name, f"b/runs/{name}-seed{seed}", name, told, np.arange(4), each)


def changed(**values):
    """What a diffusion was found to be worth: none of it, unless said otherwise."""
    names = {"own": diffusing.OWN, "once": diffusing.ONE_CALL, "without": diffusing.WITHOUT,
             "answer": diffusing.ANSWER}  # fmt: skip
    figures = {"own": 0.2, "once": 0.2, "without": 0.2, "answer": 0.2} | values
    rows = {names[k]: {"ndcg@10": v, "overlap": 0.5, "steps": 8} for k, v in figures.items()}
    return {"metric": "ndcg@10", "rows": rows, "draws": 0.25, "left_out": {}}


def standing(**diffusions):
    runs = [
        run("sasrec", 0, [0.1, 0.2, 0.3, 0.2], ease=[0.5] * 4),
        run("flow", 0, [0.1, 0.1, 0.2, 0.1], best_step=40),
        run("flow", 1, [0.1, 0.1, 0.2, 0.2]),
    ]
    later = {"control_commits": {"ease": "e1", "slim": "e0", "gfcf": "e1"}}
    runs[0] = runs[0]._replace(results=runs[0].results | later)
    board = leaderboard.board(runs, resamples=50)
    served = {
        "parameters": 7, "reverse_steps": 8, "users_per_second": 3.0,
        "users_per_processor_second": 2.0,
    }  # fmt: skip
    beside = standings.Beside(
        failed={"ddrm seed 0": "no"}, serving={"flow": served}, diffusions=diffusions
    )
    rows = standings.rows(board, runs, beside)
    return board, rows, records.record(CONTEST, board, rows, runs)


def test_a_record_is_told_again_as_it_was():
    board, rows, kept = standing(flow=changed())
    assert kept["command"] == (
        "bin/leaderboard --data=clicks.csv --models=flow,sasrec --seeds=2 --budget=30 "
        "--controls=none --eval.protocol=honest --diffuses"
    )
    assert (kept["seeds"], kept["device"], kept["commit"]) == ([0, 1], "cpu", "c0, c1")
    assert kept["commit_of_classics"] == "e1, e0"  # which may have been judged later
    back = records.read(json.loads(json.dumps(kept)))
    want = standings.markdown(board, rows, "Budget of tuning: 30 minutes each.")
    assert standings.markdown(*back) == want and "**0.5000**" in want
    assert "| ddrm seed 0 | not run: no |" in want


def test_a_table_says_who_is_first_and_what_a_diffusion_adds():
    told = records.read(standing(flow=changed())[2])
    head, (cells,) = records.summary({"clicks": told})
    assert dict(zip(head, cells, strict=True)) == {
        "data": "clicks",
        "metric": "ndcg@10",
        "best diffusion": "flow 0.1375 ± 0.0177 (20 s, 2 users/s)",
        "best yardstick": "sasrec 0.2000 (20 s)",
        "best classic": "ease 0.5000",
        "first": "ease (classic)",
    }
    first, classic, yardstick, blind, rising = records.verdicts(told)
    assert first == (
        "ease, a classic, is first; the best diffusion, flow, is -0.3625 in ndcg@10, told apart, "
        "2 seeds."
    )
    assert classic == (
        "The best classic, ease, has a higher ndcg@10 than 1 of 1 systems that diffuse: flow."
    )
    assert yardstick.startswith("The best yardstick, sasrec, has a higher ndcg@10 than 1 of 1")
    assert blind == (
        "Of 1 that were asked, 1 make no use of x_t (flow), and the lists of 0 need their chain."
    )
    assert rising.endswith("more epochs may help: flow.")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (changed(answer=0.9, once=0.1, without=0.1), "0 make no use of x_t, and the lists of 1"),
        (changed(answer=0.9, without=0.1), "0 make no use of x_t, and the lists of 0"),
    ],
)
def test_what_an_answer_shown_says(found, said):
    assert any(said in each for each in records.verdicts(records.read(standing(flow=found)[2])))


def test_bars_are_those_beside_a_model_of_whole_histories():
    rows = run("mf", 0, [0.3] * 4, ease=[0.1] * 4)._replace(seen=0)
    whole = run("sasrec", 0, [0.2] * 4, ease=[0.4] * 4)
    for runs in ([rows, whole], [whole, rows]):
        found = {entry.name: entry for entry in leaderboard.board(runs, resamples=50).entries}
        assert found["ease"].means["ndcg@10"] == pytest.approx(0.4)
    alone = {entry.name: entry for entry in leaderboard.board([rows], resamples=50).entries}
    assert alone["ease"].means["ndcg@10"] == pytest.approx(0.1)


def mixed(metric, real, shuffled):
    """What shuffled histories were found to be worth."""
    figures = [{metric: each} for each in (real, shuffled, (real + shuffled) / 2)]
    names = ("real", "shuffled", "last_kept")
    found = dict(zip(names, figures, strict=True)) | {"metric": "hr@20", "rules": {}}
    return found | {"shuffled": figures[1] | {"overlap": shuffled}}


def test_an_order_is_told_as_the_mean_of_seeds_and_in_a_sentence():
    runs = [
        run("flow", 0, [0.1] * 4), run("flow", 1, [0.1] * 4),
        run("sasrec", 0, [0.3] * 4), run("mf", 0, [0.2] * 4),
    ]  # fmt: skip
    for each, order in zip(runs, [(0.4, 0.1), (0.2, 0.2), (0.5, 0.48)], strict=False):
        each.results["order"] = mixed("ndcg@10", *order)
    board = leaderboard.board(runs, resamples=50)
    rows = standings.rows(board, runs, standings.Beside())
    told = records.read(json.loads(json.dumps(records.record(CONTEST, board, rows, runs))))
    # .4, .2 -> .3 as they are; .1, .2 -> .15 shuffled, half of it; .275 and .2 with the newest kept
    _, table, *_ = standings.markdown(*told).split("\n\n")[1:]
    assert table.splitlines()[2:] == [
        "| sasrec | ndcg@10 | 0.5000 | 0.4800 | 0.4900 | 96% | 48% |",
        "| flow | ndcg@10 | 0.3000 | 0.1500 | 0.2250 | 50% | 15% |",
    ]
    assert "Does order matter?" in standings.html(*told)
    head, *lines = csv.reader(io.StringIO(standings.csv(board, rows)))
    csvs = {line[0]: dict(zip(head, line, strict=True)) for line in lines}
    assert float(csvs["flow"]["order_shuffled"]) == pytest.approx(0.15)
    assert csvs["mf"]["order_shuffled"] == ""
    assert (
        "Of 2 whose histories were shuffled, 1 kept more than 90% of their ndcg@10: sasrec."
        in records.verdicts(told)
    )


def test_without_a_diffusion_that_is_said():
    kept = standing()[2]
    kept["rows"] = [row for row in kept["rows"] if row["name"] != "flow"]
    said = ["ease is first; no system that diffuses has been run."]
    assert records.verdicts(records.read(kept)) == said


def test_a_diffusion_that_is_first_stands_beside_the_best_yardstick():
    kept = standing(flow=changed())[2]
    ease, sasrec, flow = (
        next(row for row in kept["rows"] if row["name"] == name)
        for name in ("ease", "sasrec", "flow")
    )
    flow["means"]["ndcg@10"], sasrec["p"], sasrec["difference"] = 0.9, 0.2, -0.7
    kept["rows"] = [flow, ease, sasrec]
    assert records.verdicts(records.read(kept))[0] == (
        "flow, which diffuses, is first; the best yardstick, sasrec, is -0.7000 in ndcg@10, "
        "not told apart, 1 seed."
    )


def test_the_guide_tells_every_file(tmp_path):
    assert boards.leaderboards(tmp_path) == ""
    kept = standing(flow=changed())[2]
    for name in ("clicks", "taps"):
        (tmp_path / f"leaderboard-{name}.json").write_text(json.dumps(kept | {"dataset": name}))
    text = boards.leaderboards(tmp_path)
    summary, *parts = text.split("\n## ")
    assert [line.split(" | ")[0] for line in summary.splitlines()[2:] if line] == [
        "| clicks",
        "| taps",
    ]
    for part, name in zip(parts, ("clicks", "taps"), strict=True):
        assert part.startswith(f"{name}\n\nby moon\n\n- ease, a classic, is first;")
        assert f"{name}, test split of 4 users" in part and "| flow | 2 |" in part
        assert "\n    bin/leaderboard --data=clicks.csv" in part
        made = part.strip().splitlines()[-1]
        assert made == "Seeds 0, 1, cpu, commits: c0, c1; classics: e1, e0."


def test_a_system_without_a_file_of_its_own_has_its_place_in_a_leaderboard(tmp_path):
    kept = standing(flow=changed())[2]
    (row,) = (row for row in kept["rows"] if row["name"] == "flow")
    row |= {"name": "bayesrec", "theirs": {"itself": 0.0912, "popularity": 0.1}}

    def told(**other):
        path = tmp_path / "leaderboard-clicks.json"
        path.write_text(json.dumps(kept | other))
        lines = systems.table(tmp_path).splitlines()
        return next(line for line in lines if line.startswith("| `bayesrec` |"))

    assert told().endswith(
        "| clicks, ndcg@10 | 9.12 | 13.75 ± 1.77 | - | no figure to compare with |"
    )
    assert told(protocol="official").endswith("| not run |")


def test_models_below_popularity_are_named():
    runs = [
        run("flow", 0, [0.1] * 4, ease=[0.05] * 4, popularity=[0.2] * 4),
        run("sasrec", 0, [0.3] * 4),
        run("mf", 0, [0.15] * 4),
    ]
    board = leaderboard.board(runs, resamples=50)
    rows = standings.rows(board, runs, standings.Beside())
    told = records.read(records.record(CONTEST, board, rows, runs))
    (said,) = (each for each in records.verdicts(told) if each.startswith("Below popularity"))
    assert said.endswith(": mf, flow.")  # neither sasrec above it nor a classic below
