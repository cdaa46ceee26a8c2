"""What a terminal shows of a training."""

import re
import sys

import pytest

from jaxrec_diff import config
from jaxrec_diff.commands.progress import progress
from jaxrec_diff.training.progress import Progress


def event(kind, step, best, bad=0, metrics=None, phase=""):
    """Of a training of 80 updates in 10 epochs."""
    return Progress(kind, step, 80, step / 8, 9.0, metrics or {"loss": 0.3}, phase, best, bad)


@pytest.mark.parametrize(
    ("last", "score", "best"),
    [("backbone", 0.5, "0.5000"), ("generator", -0.7, "0.7000"), ("", 0.2, "0.2000")],
)
def test_the_bar_of_a_phase_knows_its_own_best(monkeypatch, capsys, last, score, best):
    made = config.preset("diffuasr", "synthetic").experiment
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with progress(made) as tell:
        tell(event("train", 1, score, phase=last))  # of a loss, lower is better
    assert f"loss 0.3000 best {best}" in capsys.readouterr().out


def test_the_bar_is_right_after_a_restart_and_at_the_end(monkeypatch, capsys):
    made = config.preset("sasrec", "synthetic").experiment
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    with progress(made) as tell:
        tell(event("resume", 40, 0.4))
        tell(event("compile", 40, 0.4))
        tell(event("train", 41, 0.4))
        first = capsys.readouterr().out
        tell(event("epoch", 80, 0.6, metrics={"loss": 0.2, f"valid/{made.eval.metric}": 0.6}))
    out = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", first + capsys.readouterr().out)
    bars = [line for line in re.split(r"[\r\n]", out) if "epoch" in line]
    assert "epoch 0.0" not in out and "compiling" in out
    assert "epoch 10.0 step 80 of 80 loss 0.2000 best 0.6000" in bars[-1]


def test_a_line_says_how_much_patience_is_left(capsys):
    made = config.parse(config.preset("sasrec", "synthetic").experiment, ["--train.patience=4"])
    valid = {"loss": 0.2, f"valid/{made.eval.metric}": 0.5}
    with progress(made) as tell:
        tell(event("compile", 0, float("-inf")))
        tell(event("epoch", 8, 0.5, 0, valid))
        tell(event("epoch", 16, 0.5, 2, valid))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "compiling ..." and "gain" not in said[1]
    assert said[2].endswith("best 0.5000, 2 of 4 without gain")
