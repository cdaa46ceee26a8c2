"""Processes under a parent: who is named, what is ended, which exit code comes out.

The children are small programs without JAX.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec_diff.commands import distributed, watch

ROOT = Path(__file__).parents[2]
START = (
    "import os, signal, sys, time\n"
    "from jaxrec_diff.commands import distributed\n"
    "distributed.take_files()\n"
)
WAIT = "time.sleep(60)"
ABORT = (
    "os.write(2, b'F1129 client.h:80] Terminating because the JAX distributed service detected "
    "fatal errors. Task 0 heartbeat timeout\\n    @ 0x7f frame()\\n'); os.abort()"
)


def run(*programs, capfd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", START + program] for program in programs]
    start = time.monotonic()
    code = watch.run(commands, range(len(programs)), [environment] * len(programs))
    assert time.monotonic() - start < 30
    out, err = capfd.readouterr()
    return code, out, err.strip()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(watch, "_STOPPED_SECONDS", 0.5)
    monkeypatch.setattr(watch, "_ERROR_SECONDS", 0.5)


def test_only_the_first_is_heard(capfd):
    said = "print('out', {0}); print('err', {0}, file=sys.stderr); os.write(2, b'noise')"
    code, out, err = run(said.format(0), said.format(1), capfd=capfd)
    assert (code, out, err) == (0, "out 0\n", "err 0")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_a_killed_process_ends_the_others_and_is_named(name, capfd):
    kill = f"os.kill(os.getpid(), signal.{name})"
    code, _, err = run(WAIT, kill, capfd=capfd)
    assert code == 128 + signal.Signals[name]
    assert err == f"error: process 1 was killed by {name}; all were ended"


def test_a_stopped_process_ends_the_others_and_is_named(capfd):
    code, _, err = run(WAIT, "os.kill(os.getpid(), signal.SIGSTOP)", capfd=capfd)
    assert code == 128 + signal.SIGSTOP
    assert err == "error: process 1 was stopped by SIGSTOP and did not go on; all were ended"


def test_an_error_of_one_is_said_with_its_exit_code(capfd):
    fail = "print('error: no such file', file=sys.stderr); sys.exit(2)"
    code, _, err = run(WAIT, fail, capfd=capfd)
    assert code == 2
    assert err == "error: process 1 ended with exit code 2 (no such file); all were ended"


def test_an_error_of_all_is_said_by_the_first_alone(capfd):
    fail = "print('error: no such file', file=sys.stderr); sys.exit(2)"
    assert run(fail, fail, capfd=capfd) == (2, "", "error: no such file")


def test_who_lost_another_is_not_to_blame(capfd):
    lost = f"print('error: gone', file=sys.stderr); sys.exit({distributed.LOST})"
    kill = "time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"
    code, _, err = run(f"{WAIT}", lost, kill, capfd=capfd)
    assert code == 128 + signal.SIGKILL
    assert err == "error: process 2 was killed by SIGKILL; all were ended"


def test_an_abort_of_jax_is_a_sentence_without_a_trace(capfd):
    code, _, err = run(ABORT, capfd=capfd)
    assert code == distributed.LOST
    assert err == "error: process 0 had to end: process 0 stopped answering"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signals_are_passed_on(name, tmp_path):
    child = (
        f"signal.signal(signal.{name}, lambda *_: (print('saved', flush=True), "
        f"os._exit(128 + signal.{name})))\nprint('ready', flush=True)\n{WAIT}"
    )
    parent = (
        "import os, sys\nfrom jaxrec_diff.commands import watch\n"
        f"command = [sys.executable, '-c', {START + child!r}]\n"
        "sys.exit(watch.run([command] * 2, range(2), [os.environ] * 2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # the second is ready too
    process.send_signal(signal.Signals[name])
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + signal.Signals[name], "saved\n", "")


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    child = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n{WAIT}"
    parent = (
        "import os, sys\nfrom jaxrec_diff.commands import watch\n"
        f"watch.run([[sys.executable, '-c', {START + child!r}]], [0], [os.environ])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    until = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
