"""What the commands share: how they are called, and how flags are parted."""

import sys

import pytest

from jaxrec_diff.commands import terminal
from jaxrec_diff.commands.terminal import FILE, PLAIN, Accepts


@pytest.mark.parametrize("program", ["/env/bin/jaxrec-diff", "jaxrec-diff.exe"])
def test_commands_are_named_as_they_were_typed(monkeypatch, capsys, program):
    text = "usage: bin/train --data=/usr/bin/train\n\nlike (bin/tune), not bin/other"
    monkeypatch.setattr(sys, "argv", ["cli.py"])
    assert terminal.spelled(text) == text
    monkeypatch.setattr(sys, "argv", [program])
    want = (
        "usage: jaxrec-diff train --data=/usr/bin/train\n\nlike (jaxrec-diff tune), not bin/other"
    )
    assert terminal.spelled(text) == want
    assert terminal.refuse("name one that bin/train made") == 2
    assert "jaxrec-diff train made" in capsys.readouterr().err


def test_flags_of_a_command_and_of_the_experiment_are_parted():
    accepts = Accepts({"workdir": FILE, "k": PLAIN}, ("quiet",), words=True)
    flags = terminal.split_flags(
        ["a", "--k", "3", "--workdir=b=c", "--quiet", "--train.x=1", "--help"], accepts
    )
    assert flags == ({"k": "3", "workdir": "b=c"}, {"quiet"}, ["--train.x=1"], ["a"], True)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--k=1", "--k=2"], "--k is given twice"),
        (["--k"], "--k needs a value"),
        (["--k", "--quiet"], "--k needs a value"),
        (["--quiet=yes"], "--quiet is a switch and takes no value, got 'yes'"),
    ],
)
def test_flags_that_cannot_be_parted_are_refused(argv, said):
    with pytest.raises(ValueError, match=said):
        terminal.split_flags(argv, Accepts({"k": PLAIN}, ("quiet",)))
