"""What the README shows is true: its Python runs, its commands' flags are known."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests import shown

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = shown.snippets(README)
COMMANDS = shown.commands(README)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_python_runs(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(SNIPPETS[number], scope)
    if "x0" in scope:
        assert scope["x0"].shape == (8, 64)
    else:
        assert (
            scope["found"]["metrics"]["hr@20"] > scope["found"]["controls"]["popularity"]["hr@20"]
        )
        assert len(scope["each"].items) == 5 and 17 not in scope["each"].items
        assert (tmp_path / "runs" / "shop" / "results.json").exists()
        assert capsys.readouterr().out.count("\n") == 4


def test_there_is_python_and_every_command_is_shown():
    assert len(SNIPPETS) >= 2
    programs = {path.name for path in (ROOT / "bin").iterdir() if path.suffix == ""}
    assert {name for name, _ in COMMANDS} <= programs
    for needed in ("train", "evaluate", "compare", "recommend", "export"):
        assert any(name == needed for name, _ in COMMANDS), needed


@pytest.mark.parametrize(("name", "words"), COMMANDS, ids=lambda part: part[:40])
def test_flags_of_commands_are_known(name, words, capsys):
    shown.check(name, words, capsys)


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert "benchmarks/results/walk.svg" in links and len(links) > 5
    for link in links:
        assert (ROOT / link).exists(), link


def test_every_preset_is_in_the_table():
    names = {path.stem for path in (ROOT / "configs").glob("*.py")}
    listed = set(re.findall(r"^\| `([a-z0-9_]+)` \|", README, re.MULTILINE))
    assert names == listed


def test_the_table_of_peers_is_what_the_results_say():
    summary = _benchmark("summary")
    assert summary.written(README) == README, "run python benchmarks/summary.py"
    assert summary.table().count("\n") > 5


def test_the_table_beside_recbole_is_what_its_file_says():
    summary = _benchmark("summary")
    page = summary.MEASUREMENTS.read_text()
    assert summary.measured(page) == page, "run python benchmarks/summary.py"


def test_the_page_of_what_was_tried_is_that_of_its_files():
    ours = _benchmark("ours")
    assert ours.written(ours.PAGE.read_text()) == ours.PAGE.read_text(), "benchmarks/ours.py table"


def _benchmark(name):
    spec = importlib.util.spec_from_file_location(
        f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
