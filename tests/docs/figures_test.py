"""Figures of pages: found by their keys, and what the page of open questions says of them."""

import json
import re
from pathlib import Path

import pytest

from jaxrec_diff.docs import figures
from jaxrec_diff.reporting import parity

PAGE = (Path(figures.__file__).parent / "pages" / "questions.md").read_text()
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def test_places_are_filled_by_their_keys(tmp_path):
    kept = {"command": "bin/train", "arms": [{"arm": "a, b", "x": 0.5}, {"arm": "c", "x": 0.0123}]}
    (tmp_path / "run.json").write_text(json.dumps(kept))
    for said, want in (
        ("{{share: run > arms > arm=c > x}}", ".0123"),
        ("{{percent: run > arms > arm=c > x}}", "1.2 %"),
        ("{{rest: run > arms > arm=a, b > x}}", "50.0 %"),
        ("{{number: run > arms > arm=a, b > x}} and {{command: run}}", "0.5 and bin/train"),
        ("no {place}", "no {place}"),
    ):
        assert figures.filled(said, tmp_path) == want
    for wrong in ("run > arms > arm=d > x", "run > command > x", "other > x", "run > arm"):
        with pytest.raises(ValueError, match="holds no"):
            figures.filled(f"{{{{share: {wrong}}}}}", tmp_path)


def test_an_installed_package_says_where_figures_are(monkeypatch):
    monkeypatch.setattr(parity, "results_folder", lambda: None)
    assert figures.filled("{{share: run > x}}") == figures.diffuses() == "(in a checkout)"


def test_every_question_has_a_command_and_figures_of_files():
    questions = PAGE.split("\n## ")[1:]
    assert len(questions) > 8
    for question in questions:
        assert re.search(r"^    (bin/|python |\{\{command)", question, re.M), question[:60]
        assert "{{" in question, question[:60]
    typed = re.sub(r"\{\{[^}]*\}\}", "", PAGE)
    # what is typed are settings, never a result
    assert set(re.findall(r"(?<![\w@])0?\.\d+", typed)) <= {"0.05", "0.1", "0.9"}


def read(name, *keys):
    return figures.figure(RESULTS, [name, *keys])


def test_the_words_of_the_page_hold_of_its_figures():
    def noise(variant):
        return read("ml-1m-clean-diffrec-noise", "arms", f"variant={variant}", "test/recall@20")

    released = noise("released: variance 3.5e-5, from the row")
    assert noise("no noise") < 0.5 * released  # a little noise is needed
    high = [f"variance 0.9, from {start}" for start in ("the row", "its noisiest step")]
    for variant in (*high, "cosine to a normal, from a normal"):
        assert noise(variant) < 0.7 * released  # much of it harms
    assert noise("uniform steps") >= released  # importance is no help

    def ddrm(arm, of="ddrm"):
        return read("ml-1m-noisy-ddrm-ablations", "arms", f"arm={arm}", "test", of, "recall@20")

    base, mean = ddrm("released levels"), ddrm("released levels", "mean_item")
    for arm in ("no start noise", "no chain"):
        assert abs(ddrm(arm) - base) < 0.03 * base
    assert abs(mean - base) < 0.03 * base < ddrm("released levels", "backbone") - base
    assert ddrm("reconstruction only") > base > ddrm("levels from .001 to .5")
    unit = "rows of length 1"
    arms = ("released levels", "unit variance", "width 16", unit)
    every = [ddrm(arm, of) for arm in arms for of in ("ddrm", "mean_item", "backbone")]
    assert ddrm(unit, "mean_item") == max(every)

    def diffurec(arm):
        return read("synthetic-diffurec-ablations", "figures", f"arm={arm}", "metrics", "hr@20")

    assert diffurec("positions") < diffurec("released") == diffurec("stopped")
    assert diffurec("no diffusion") >= diffurec("released")
    for arm in ("steps 1, mean lambda", "steps 1, lambda 0"):
        assert read("ml-1m-diffurec-steps", "arms", f"arm={arm}", "ndcg@10_ratio") > 0.99
    for name in ("amazon-beauty-diffrec2-seed0", "ml-1m-diffrec2-seed0"):
        one, chain = read(name, "metrics", "ndcg@10"), read(name, "diagnostics", "full", "ndcg@10")
        assert chain < 0.5 * one < 0.5 * read(name, "controls", "transitions", "ndcg@10")
    way = "way=codebook of 64 users"
    assert read("synthetic-diqdiff-codes", "figures", way, "overlap_with_first") > 0.9
