"""What a terminal shows of a training."""

import sys

import pytest

from jaxrec_diff import config
from jaxrec_diff.commands.progress import progress
from jaxrec_diff.training.progress import Progress


@pytest.mark.parametrize(
    ("last", "best"), [("backbone", "0.5000"), ("generator", "0.7000"), ("", "0.2000")]
)
def test_the_bar_of_a_phase_knows_its_own_best(monkeypatch, capsys, last, best):
    made = config.preset("diffuasr", "synthetic").experiment
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    hits = f"valid/{made.backbone.eval.metric}"
    figures = {
        "backbone": (hits, 0.5, 0.4),
        "generator": ("valid/loss", 0.7, 0.8),  # lower is better
        "": (hits, 0.1, 0.2),
    }
    with progress(made) as tell:
        for phase, (name, *values) in figures.items():
            for value in values:
                tell(Progress("epoch", 8, 8, 1.0, 9.0, {name: value, "loss": 1.0}, phase))
        tell(Progress("train", 1, 8, 0.1, 9.0, {"loss": 0.3}, last))
    assert f"loss 0.3000 best {best}" in capsys.readouterr().out
