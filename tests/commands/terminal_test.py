"""What the commands share: how they are called, and how flags are parted."""

import sys

import jax
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


@pytest.mark.parametrize("given", [None, "2"])
@pytest.mark.parametrize("folder", [None, "mine"])
def test_small_programs_are_kept_unless_somebody_says_otherwise(monkeypatch, given, folder):
    told = {}
    variables = {
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": given,
        "JAX_COMPILATION_CACHE_DIR": folder,
    }
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.config, "update", told.__setitem__)
    terminal.quiet_start()
    assert told.get("jax_persistent_cache_min_compile_time_secs") == (
        0.0 if given is None else None
    )
    assert ("jax_compilation_cache_dir" in told) == (folder is None)
