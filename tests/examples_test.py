"""The walks run as plain python, and end where they say."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from jaxrec_diff import examples

FOLDER = Path(examples.__file__).parent


def test_bring_your_own_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["walk", str(tmp_path)])
    scope = runpy.run_path(str(FOLDER / "bring_your_own_data.py"))
    said = capsys.readouterr().out
    found = scope["found"]
    assert found["metrics"]["hr@10"] > 2 * found["controls"]["popularity"]["hr@10"]
    assert found["data_hash"] == scope["shown"].card["hash"]
    gone = sum(visitor is None for visitor in scope["clicks"]["visitor"])
    assert gone and f"left out {gone} of" in said and f"no visitor in {gone}" in said
    known, partly, unknown = scope["lists"]
    assert "SKU-013" in known.items and "SKU-041" in partly.items
    assert unknown.fallback and not known.fallback
    assert (tmp_path / "sasrec" / "results.json").exists()


def test_pure_functions(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["walk", "1500"])
    scope = runpy.run_path(str(FOLDER / "pure_functions.py"))
    assert scope["last"] < 0.8 * scope["first"]
    assert abs(scope["radius"].mean() - 1) < 0.1 and scope["radius"].std() < 0.1
    assert scope["right_side"] > 0.9


def test_pure_functions_take_nothing_else():
    source = (FOLDER / "pure_functions.py").read_text()
    imported = re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    assert set(imported) == {"sys", "flax", "jax", "numpy", "jaxrec_diff"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_walks_are_in_cells(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# %% [markdown]" and lines.count("# %%") >= 4
