"""The shell callers: which Python they take, how they make one, what survives an interruption.

The Pythons here are shell scripts that note what they are asked, so that nothing is installed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
TOOLS = "bash cat cksum cp dirname find flock ln mkdir mv readlink rm rmdir sed sleep sort tr uname"

FAKE_PYTHON = """\
#!/usr/bin/env bash
echo "${0##*/} $*" >>"$NOTES"
case "$*" in
  *check_environment.py*) [ -n "${SUITS:-}" ] ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) sleep "${PIP_SLEEPS:-0}"; exit "${PIP_FAILS:-0}" ;;
  "-c import sys, venv"*) exit "${TOO_OLD:-0}" ;;
  *jaxrec_diff.cli*) printf '%s|' "$0" "${PYTHONPATH:-}" "$PWD" "$@" ;;
  *mypy*) exit "${MYPY_FAILS:-0}" ;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


class Machine(NamedTuple):
    """A checkout with a space in its path, and all that is on PATH."""

    root: Path
    programs: Path
    notes: Path

    def environment(self, **more: str) -> dict[str, str]:
        base = {"PATH": str(self.programs), "HOME": str(self.root.parent), "NOTES": str(self.notes)}
        return {**base, "JAXREC_ACCELERATOR": "cpu", **more}

    def run(self, command="bin/train", *words, cwd=None, **more) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.root / command, *words],
            env=self.environment(**more),
            cwd=cwd or self.root.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def start(self, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [self.root / "bin/train"],
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def asked(self, what: str) -> list[str]:
        """The calls of a Python that contain some words."""
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return [line for line in lines if what in line]

    def add_program(self, name: str, text: str = FAKE_PYTHON) -> Path:
        path = self.programs / name
        path.write_text(text)
        path.chmod(0o755)
        return path


@pytest.fixture
def machine(tmp_path) -> Machine:
    made = Machine(tmp_path / "a check out", tmp_path / "programs", tmp_path / "notes")
    shutil.copytree(ROOT / "bin", made.root / "bin")
    shutil.copy(ROOT / "pyproject.toml", made.root)
    made.programs.mkdir()
    for tool in (*TOOLS.split(), "env"):
        found = shutil.which(tool)
        if found:
            (made.programs / tool).symlink_to(found)
    made.add_program("python3.12")
    return made


def test_first_run_makes_the_environment_from_the_constraints(machine):
    run = machine.run("bin/train", "--model=x", "two words")
    assert run.returncode == 0, run.stderr
    python, path, cwd, *words = run.stdout.split("|")[:-1]
    assert python == f"{machine.root}/.venv/bin/python"
    assert (path, cwd) == ("", str(machine.root.parent))
    assert words == ["-P", "-m", "jaxrec_diff.cli", "train", "--model=x", "two words"]
    (pip,) = machine.asked("pip install")
    assert pip.endswith(f"-c {machine.root}/bin/constraints.txt -e {machine.root}")
    assert "making" in run.stderr and "is ready" in run.stderr


def test_later_runs_only_read_the_stamp(machine):
    machine.run()
    before = len(machine.asked(""))
    run = machine.run("bin/evaluate", "--seeds=2")
    assert run.stdout.endswith("evaluate|--seeds=2|")
    assert run.stderr == ""
    assert len(machine.asked("")) == before + 1


def test_through_a_link_and_from_elsewhere(machine, tmp_path):
    link = tmp_path / "train it"
    link.symlink_to(machine.root / "bin/train")
    (tmp_path / "elsewhere").mkdir()
    run = machine.run(link, cwd=tmp_path / "elsewhere")
    assert run.stdout.startswith(f"{machine.root}/.venv/bin/python||{tmp_path}/elsewhere|")


@pytest.mark.parametrize("tools", ["flock", "no flock"])
def test_killed_set_up_is_made_anew(machine, tools):
    if tools == "no flock":
        (machine.programs / "flock").unlink(missing_ok=True)
    first = machine.start(PIP_SLEEPS="30")
    wait_for(lambda: machine.asked("pip install"))
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not (machine.root / ".venv/.complete").exists()
    run = machine.run()
    assert run.returncode == 0, run.stderr
    assert len(machine.asked("-m venv")) == 2
    assert (machine.root / ".venv/.complete").exists()


def test_failed_installation_is_no_environment(machine):
    run = machine.run(PIP_FAILS="1")
    assert run.returncode == 1
    assert run.stdout == ""
    assert "the same command tries again" in run.stderr
    assert machine.run().returncode == 0


@pytest.mark.parametrize("tools", ["flock", "no flock"])
def test_two_runs_at_once_install_once(machine, tools):
    if tools == "no flock":
        (machine.programs / "flock").unlink(missing_ok=True)
    runs = [machine.start(PIP_SLEEPS="0.5") for _ in range(2)]
    assert [run.wait(timeout=60) for run in runs] == [0, 0]
    assert len(machine.asked("pip install")) == 1
    assert len(machine.asked("jaxrec_diff.cli")) == 2


@pytest.mark.parametrize("file", ["pyproject.toml", "bin/constraints.txt"])
def test_changed_requirements_update_the_environment(machine, file):
    machine.run()
    with open(machine.root / file, "a") as out:
        out.write("# changed\n")
    assert machine.run().returncode == 0
    assert len(machine.asked("pip install")) == 2
    assert len(machine.asked("-m venv")) == 1


def test_moved_checkout_updates_the_environment(machine):
    machine.run()
    moved = machine._replace(root=machine.root.rename(machine.root.parent / "moved"))
    assert moved.run().stdout.startswith(f"{moved.root}/.venv/bin/python|")
    assert machine.asked("pip install")[-1].endswith(f"-e {moved.root}")


def test_interrupted_addition_is_not_trusted(machine):
    machine.run()
    assert machine.run("bin/test", PIP_FAILS="1").returncode == 1
    machine.run()
    assert len(machine.asked("pip install")) == 3


def test_update_keeps_extras(machine):
    machine.run("bin/test")
    with open(machine.root / "pyproject.toml", "a") as out:
        out.write("# changed\n")
    machine.run("bin/train")
    assert machine.asked("pip install")[-1].endswith("[dev,test]")


def test_an_addition_repeats_no_lines_and_a_dead_network_is_named(machine):
    first = machine.run(PIP_FAILS="1")
    assert first.returncode == 1 and "it needs the network" in first.stderr
    machine.run()
    assert all("--quiet" not in line for line in machine.asked("pip install"))
    machine.run("bin/report", "--workdir=x")
    assert "--quiet" in machine.asked("pip install")[-1]
    assert all("--retries 1 " in line for line in machine.asked("pip install"))


def test_extras_are_added_and_stay(machine):
    machine.run()
    run = machine.run("bin/test", "tests/x_test.py", "--slow")
    assert run.returncode == 0, run.stderr
    assert machine.asked("pip install")[-1].endswith("[dev,test]")
    assert [line.split()[2] for line in machine.asked("python -m ")[-4:]] == [
        "ruff",
        "ruff",
        "mypy",
        "pytest",
    ]
    ran = machine.asked("pytest")[-1]
    assert re.fullmatch(r"python -m pytest -n \d --dist=worksteal tests/x_test.py -m ", ran)
    machine.run()
    assert len(machine.asked("pip install")) == 2


def test_a_flag_may_ask_for_an_extra(machine):
    machine.run("bin/train", "--model=x", "--log.tensorboard=true")
    assert machine.asked("pip install")[-1].endswith("[log]")
    machine.run("bin/tune", "--log.tensorboard=true", "--model=x")
    assert machine.asked("pip install")[-1].endswith("[log,tune]")


def test_all_checks_run_and_one_failure_fails(machine):
    run = machine.run("bin/test", MYPY_FAILS="1")
    assert run.returncode == 1
    assert machine.asked("-m pytest")
    assert run.stderr.endswith("FAILED: mypy\n")


@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_accelerator_can_be_chosen(machine, name):
    machine.run(JAXREC_ACCELERATOR=name)
    assert machine.asked("pip install")[0].endswith(f"-e {machine.root}[{name}]")


def test_unknown_accelerator_is_refused(machine):
    run = machine.run(JAXREC_ACCELERATOR="gpu")
    assert run.returncode == 2
    assert run.stderr == "error: JAXREC_ACCELERATOR is 'gpu'; it can be cpu, cuda or tpu\n"
    assert not (machine.root / ".venv").exists()


def test_accelerator_is_seen(machine):
    machine.add_program("nvidia-smi", "#!/usr/bin/env bash\necho GPU 0\n")
    machine.run(JAXREC_ACCELERATOR="")
    assert machine.asked("pip install")[0].endswith("[cuda]")


@pytest.mark.skipif(
    any(Path("/dev").glob("nvidia*")) or any(Path("/dev").glob("accel*")),
    reason="this machine has an accelerator",
)
def test_machine_without_accelerator_installs_for_cpu(machine):
    machine.add_program("nvidia-smi", "#!/usr/bin/env bash\nexit 9\n")
    machine.run(JAXREC_ACCELERATOR="")
    assert machine.asked("pip install")[0].endswith(f"-e {machine.root}")


@pytest.mark.parametrize("reason", ["none", "too old"])
def test_no_python_is_one_sentence(machine, reason):
    if reason == "none":
        (machine.programs / "python3.12").unlink()
    run = machine.run(TOO_OLD="1")
    assert run.returncode == 2
    assert run.stderr.startswith("error: no Python 3.11, 3.12 or 3.13")
    assert run.stderr.count("\n") == 1
    assert not (machine.root / ".venv").exists()


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_active_environment_that_suits_is_taken(machine, tmp_path, variable):
    (tmp_path / "active/bin").mkdir(parents=True)
    shutil.copy(machine.programs / "python3.12", tmp_path / "active/bin/python")
    more = {variable: str(tmp_path / "active")}
    run = machine.run(**more, SUITS="1", PYTHONPATH="/mine")
    assert run.stdout.startswith(f"{tmp_path}/active/bin/python|{machine.root}:/mine|")
    assert not (machine.root / ".venv").exists()
    run = machine.run(**more)
    assert run.stdout.startswith(f"{machine.root}/.venv/bin/python|")
    assert f"the active {tmp_path}/active lacks" in run.stderr


def test_python3_that_suits_is_taken(machine):
    machine.add_program("python3")
    run = machine.run(SUITS="1")
    assert run.stdout.startswith(f"{machine.programs}/python3|{machine.root}|")


def test_named_python_is_taken_unchecked(machine):
    python = machine.add_program("my python")
    run = machine.run(JAXREC_PYTHON=str(python))
    assert run.stdout.startswith(f"{python}|{machine.root}|")
    run = machine.run(JAXREC_PYTHON="no such")
    assert run.returncode == 2
    assert run.stderr.startswith("error: JAXREC_PYTHON names 'no such'")


def test_environment_of_others_is_left_alone(machine):
    (machine.root / ".venv/bin").mkdir(parents=True)
    (machine.root / ".venv/bin/precious").touch()
    run = machine.run()
    assert run.returncode == 2
    assert "was made by something else" in run.stderr
    assert (machine.root / ".venv/bin/precious").exists()


def test_requirements_are_compared_with_what_is_installed(tmp_path):
    def lacks(dependency: str, *extras: str, python: str = ">=3.11") -> str:
        path = tmp_path / "pyproject.toml"
        path.write_text(
            f'[project]\nrequires-python = "{python}"\ndependencies = ["{dependency}"]\n'
            '[project.optional-dependencies]\nmore = ["pytest>=999,<1000"]\n'
        )
        command = [sys.executable, ROOT / "bin/check_environment.py", path, *extras]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == bool(run.stdout), run.stderr
        return run.stdout

    assert lacks("numpy>=2,<99") == ""
    assert lacks("numpy>=2,<2.0.0").startswith("numpy>=2,<2.0.0 (it has")
    assert lacks("numpy>=99").startswith("numpy>=99 (it has 2")
    assert lacks("no_such_thing>=1") == "no_such_thing>=1 (it has none)\n"
    assert lacks("numpy>=2", "more").startswith("pytest>=999,<1000 (it has")
    assert lacks("numpy>=2", python=">=3.99") == "Python >=3.99\n"


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
