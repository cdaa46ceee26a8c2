"""The table of what a diffusion is worth, and the sentence under it."""

import json
from pathlib import Path

import pytest

from jaxrec_diff.experiments import diffusing
from jaxrec_diff.reporting import diffusion


def found(**figures):
    names = {"own": diffusing.OWN, "once": diffusing.ONE_CALL, "without": diffusing.WITHOUT}
    names |= {"answer": diffusing.ANSWER}
    rows = {
        names[name]: {"ndcg@10": value, "overlap": 0.5, "steps": 4}
        for name, value in figures.items()
    }
    return {"metric": "ndcg@10", "rows": rows, "draws": 0.25, "left_out": {"fast": "no time"}}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        (dict(own=0.2, once=0.2, without=0.2, answer=0.203), "no use of x_t"),
        (dict(own=0.2, once=0.1, without=0.21, answer=0.9), "adds nothing"),
        (dict(own=0.2, once=0.2, without=0.1, answer=0.9), "one call is as good"),
        (dict(own=0.2, once=0.1, without=0.1, answer=0.9), "better than one call"),
        (dict(own=0.2, once=0.1, without=0.1), ""),
    ],
)
def test_the_sentence_follows_from_the_rows(figures, said):
    verdict = diffusion.verdict(found(**figures))
    assert said in verdict and bool(said) == bool(verdict)


def test_the_chain_is_judged_where_lists_come_from_none():
    made = found(own=0.5, once=0.2, without=0.1, answer=0.9)
    made["rows"][diffusing.OWN]["steps"] = 0
    assert diffusion.verdict(made) == ""  # no chain was walked
    made["rows"][diffusing.FULL] = {"ndcg@10": 0.4, "overlap": 0.5, "steps": 9}
    assert diffusion.verdict(made).endswith(
        "than one call and than none; it recommends without a chain"
    )
    assert diffusion.across({"a": made})[1][0][2] == "none of 9"


def test_the_table_has_all_rows_and_says_what_is_missing():
    made = found(own=0.2, once=0.1, without=0.1, answer=0.9)
    lines = diffusion.lines({"diffusion": made})
    head, body = diffusion.table(made)
    assert len(body) == 5 and {len(row) for row in body} == {len(head)}
    assert "50%" in next(line for line in lines if line.startswith("one call"))
    assert "450%" in next(line for line in lines if line.startswith("the true x_0"))
    assert "no fast: no time" in lines and lines[-1] == diffusion.verdict(made)
    assert diffusion.lines({}) == []


def test_systems_stand_side_by_side():
    text = diffusion.markdown({"a": found(own=0.2), "b": found(own=0.1, once=0.3)})
    lines = text.splitlines()
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert lines[2].startswith("| a | ndcg@10 | 4 | 0.2000 | - | -") and "0.3000" in lines[3]


def test_the_table_of_the_benchmarks_is_made_of_its_file():
    folder = Path(__file__).parents[2] / "benchmarks"
    kept = json.loads((folder / "results" / "diffuses-ml-100k.json").read_text())["systems"]
    table = diffusion.markdown({name: each["diffusion"] for name, each in kept.items()})
    assert table in (folder / "README.md").read_text() and len(kept) > 5
    assert all("--eval.diffuses=true" in each["command"] for each in kept.values())
