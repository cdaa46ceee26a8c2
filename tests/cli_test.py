"""Commands by name, and what cannot be run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrec_diff import _version, cli, config

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["train"], "name a model"),
        (["train", "--model=dimrec"], "did you mean dimerec"),
        (["train", "--model=dimerec", "--model=dreamrec"], "twice"),
        (["train", "--model=dimerec", "--data=no/such.csv"], "does not exist"),
        (["train", "--model=dimerec", "--train.batch-size=9999999", "--devices=1"], "at most"),
        (["train", "--model=sasrec", "--train.batch-size=9999999", "--devices=1"], "at most"),
        (["train", "--model=dimerec", "--devices=99"], "at most 8"),
        (["train", "--model=dimerec", "--mesh=data:4,model:4"], "data:2,model:4 takes 8"),
        (["train", "--model=dimerec", "--mesh=data:2", "--devices=6"], "data:6,model:1 takes 6"),
        (["train", "--model=dimerec", "--mesh=rows:4"], "mesh=data:4,model:2 is"),
        (["train", "--model=dimerec", "--mesh=model:2", "--parallel=pmap"], "parallel=jit has one"),
        (["train", "--model=dimerec", "--mesh=data:4,model:2", "--train.batch-size=18"], "16 does"),
        (["evaluate", "--workdir=nowhere"], "nowhere does not exist; name a workdir"),
        (["nothing"], "expected one of"),
    ],
)
def test_refusals_are_one_line(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(flags) == 2
    said_there = capsys.readouterr().err
    assert said in said_there and said_there.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_commands_and_the_version_are_told(capsys):
    for asked in (["--help"], ["-h"], ["help"]):
        assert cli.main(asked) == 0
        said = capsys.readouterr().out
        assert max(map(len, said.splitlines())) <= 80
        assert all(f"  bin/{name} " in said for name in cli.COMMANDS)
    for asked in (["--version"], ["train", "--version"], ["recommend", "--version"]):
        assert cli.main(asked) == 0
        assert capsys.readouterr().out == f"jaxrec-diff {_version.__version__}\n"


def test_the_models_are_listed_with_a_line_each(capsys):
    assert cli.main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == config.preset_names()
    assert all(40 < len(line) <= 80 for line in lines)
    assert "dreamrec       DreamRec (arXiv:2310.20453)" in "\n".join(lines)


def test_a_command_that_failed_does_not_wait_for_its_threads():
    program = (
        "import sys, threading, time\n"
        "from jaxrec_diff import cli\n"
        "cli._PATIENCE = 0.1\n"
        "cli.main = lambda: {} \n"
        "threading.Thread(target=time.sleep, args=({},)).start()\n"
        "sys.stdout.write('said')\n"
        "cli.script()\n"
    )

    def run(code, seconds):
        command = [sys.executable, "-c", program.format(code, seconds)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)

    failed = run(4, 100)
    assert (failed.returncode, failed.stdout, failed.stderr) == (4, "said", "")
    assert run(0, 0.5).returncode == 0  # one that did not waits


def test_a_command_that_failed_keeps_its_code_whatever_libraries_do_at_the_end():
    program = (
        "import atexit, os, sys\n"
        "from jaxrec_diff import cli\n"
        "atexit.register(os.abort)\n"
        "cli.main = lambda: 2\n"
        "sys.stdout.write('said')\n"
        "cli.script()\n"
    )
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (run.returncode, run.stdout, run.stderr) == (2, "said", "")


@pytest.mark.parametrize("moment", ["jax", "jaxrec_diff.experiments.pipeline"])
def test_ctrl_c_before_training_ends_a_command_in_a_line(moment, tmp_path):
    """It comes inside a callback of the garbage collector, as JAX has one, where an exception is
    lost: while JAX is imported, or when the settings are known and training is not yet begun."""
    program = (
        "import gc, os, signal, sys\n"
        "from jaxrec_diff import cli\n"
        "class Moment:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == {moment!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            gc.callbacks.append(self.collected)\n"
        "            gc.collect()\n"
        "            sys.stdout.write('it went on')\n"
        "            raise SystemExit(5)\n"
        "    def collected(self, *rest):\n"
        "        gc.callbacks.remove(self.collected)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Moment())\n"
        "sys.argv = ['jaxrec-diff', 'train', '--model=mf', '--workdir=run']\n"
        "cli.script()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "stopped by SIGINT\n")
    assert not list(tmp_path.iterdir())
