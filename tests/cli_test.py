"""Commands by name, and what cannot be run."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxrec_diff import cli

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
        (["evaluate", "--workdir=nowhere"], "config.json"),
        (["nothing"], "expected one of"),
    ],
)
def test_refusals_are_one_line(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(flags) == 2
    said_there = capsys.readouterr().err
    assert said in said_there and said_there.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
