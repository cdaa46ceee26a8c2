"""What every command says of itself: on a screen, with examples, also to a reader who leaves."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.commands import COMMANDS as KNOWN

ROOT = Path(__file__).parents[2]
# Executables of bin/; those that a shell script answers itself are run as they are.
COMMANDS = sorted(path.name for path in (ROOT / "bin").iterdir() if os.access(path, os.X_OK))
BY_SHELL = {"test"}


def help_of(command: str, capsys) -> str:
    if command in BY_SHELL:
        return subprocess.run(
            [ROOT / "bin" / command, "--help"], capture_output=True, text=True, check=True
        ).stdout
    assert cli.main([command, "--help"]) == 0
    return capsys.readouterr().out


def test_every_executable_is_a_command():
    assert set(COMMANDS) == {*KNOWN, *BY_SHELL}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_has_examples(command, capsys):
    said = help_of(command, capsys)
    assert max(map(len, said.splitlines())) <= 80
    assert said.count("\n") <= 45
    usage, example, _ = said.split("\n\n", 2)
    assert usage.startswith(f"usage: bin/{command}")
    assert re.search(rf"^  bin/{command}\b", example, re.MULTILINE)


@pytest.mark.parametrize("name", config.preset_names())
def test_help_of_a_model_fits_80_columns_and_has_an_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["train", f"--model={name}", "--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    assert f"bin/train --model={name} --train." in said
    assert "--log.tensorboard" in said and "--model." in said


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - BY_SHELL))
def test_a_reader_who_leaves_hears_no_complaint(command):
    reading, writing = os.pipe()
    os.close(reading)  # from the start, where `| head -1` leaves sooner or later
    run = subprocess.run(
        [sys.executable, "-m", "jaxrec_diff.cli", command, "--help"],
        cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    assert (run.returncode, run.stderr) == (141, "")


def test_help_loads_nothing_heavy():
    heavy = ["flax", "jax", "numpy", "optax", "orbax", "pyarrow", "rich", "tyro"]
    program = (
        "import sys\n"
        "from jaxrec_diff import cli\n"
        f"for command in {KNOWN}:\n"
        "    assert cli.main([command, '--help']) == 0\n"
        f"    found = sorted(set({heavy}) & set(sys.modules))\n"
        "    if found: sys.exit(f'{command} --help loads {found}')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
