"""Results files: kept small, and free of the machine that they were made on."""

import importlib.util
import json
import re

import pytest

from tests import shown

BENCHMARKS = shown.ROOT / "benchmarks"


@pytest.fixture
def collect():
    spec = importlib.util.spec_from_file_location("collect", BENCHMARKS / "collect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_standings_of_a_contest_lose_paths_and_digits(collect, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXREC_DATA", str(tmp_path / "data"))
    folder = tmp_path / "board"
    folder.mkdir()
    rows = [
        {"name": "mf", "means": {"hr@10": 0.123456789}, "why": f"no (2, {folder}/jobs/log.txt)"}
    ]
    told = {"command": f"bin/leaderboard --data={tmp_path}/data/clicks.csv", "rows": rows}
    (folder / "leaderboard.json").write_text(json.dumps(told))
    assert collect.contest(folder) == {
        "command": "bin/leaderboard --data=$JAXREC_DATA/clicks.csv",
        "rows": [{"name": "mf", "means": {"hr@10": 0.1234568}, "why": "no (2, jobs/log.txt)"}],
    }


def test_no_results_file_names_a_place_on_a_machine():
    place = re.compile(r"[\"' =,(]/(work|root|home|tmp|data|Users|mnt)/")
    named = {
        path.name: found[0]
        for path in (BENCHMARKS / "results").glob("*.json")
        if (found := place.search(path.read_text()))
    }
    assert named == {}
