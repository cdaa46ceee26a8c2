"""Runs commands as processes that can be hurt, judges what became of them, counts.

    JAXREC_FAULTS=benchmarks/results/faults.json python -m pytest -m slow tests/faults -k kills

adds the counts of what it ran to a file. Most commands are forked from a process that has imported
everything already; those that are not go through `bin/`.
"""

import fcntl
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import child
from tests.faults.child import Fault

ROOT = Path(__file__).parent.parent.parent
SEED = int(os.environ.get("JAXREC_FAULTS_SEED", "0"))
HANGS = 20.0  # seconds after a fault, beyond what an undisturbed run takes
OUTCOMES = ("held", "lost", "tracebacks", "hangs", "silent")
NOTHING = Fault()

_ENVIRONMENT = {
    "JAXREC_REPORT": "0",
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
_PRELOAD = [
    "tests.faults.inputs", "pytest", "jaxrec_diff.api", "pyarrow.parquet", "pyarrow.csv", "optuna",
    *(f"jaxrec_diff.commands.{name}" for name in (
        "train", "tune", "recommend", "export", "augment", "evaluate", "compare", "convert")),
    "jaxrec_diff.experiments.pipeline", "jaxrec_diff.experiments.tuning",
    "jaxrec_diff.inference.recommender", "jaxrec_diff.inference.export",
    "jaxrec_diff.commands.progress", "jaxrec_diff.reporting.figures",
]  # fmt: skip


class Ended(NamedTuple):
    """How a command ended."""

    code: int  # negative: the signal that ended it
    said: str  # on stdout and stderr
    hung: bool
    operations: int  # that wrote, where it was forked and ended by itself

    @property
    def traceback(self) -> bool:
        crashed = -self.code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE)
        return "Traceback (most recent call last)" in self.said or crashed

    @property
    def refused(self) -> bool:
        """Whether it ended with one sentence."""
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        return self.code not in (0, 1) and self.code > 0 and len(errors) == 1


class Running:
    """A command under way."""

    def __init__(self, argv: list[str], folder: Path, fault: Fault = NOTHING, through_bin=False):
        self._said = folder.parent / f"{folder.name}-{time.monotonic_ns()}.said"
        self._process: Any
        if through_bin:
            environment = os.environ | _ENVIRONMENT | {"JAXREC_PYTHON": sys.executable}
            command = [str(ROOT / "bin" / argv[0]), *argv[1:]]
            with self._said.open("w") as said:
                self._process = subprocess.Popen(
                    command, cwd=folder, env=environment, stdout=said, stderr=said,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
        else:
            self._process = context().Process(
                target=child.run, args=(argv, str(folder), str(self._said), _ENVIRONMENT, fault)
            )
            self._process.start()
        self.pid = self._process.pid

    def running(self) -> bool:
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is None
        return self._process.is_alive()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            pass

    def wait(self, limit: float | None = None) -> Ended:
        end, hung = time.monotonic() + (limit or _limit[0]), False
        while self.running():
            if time.monotonic() > end:
                hung = True
                self.kill()
                break
            time.sleep(0.005)
        if isinstance(self._process, subprocess.Popen):
            code = self._process.wait()
        else:
            self._process.join()
            code = self._process.exitcode
        said = self._said.read_text(errors="replace") if self._said.exists() else ""
        counted = Path(str(self._said) + ".operations")
        operations = int(counted.read_text()) if counted.exists() else 0
        for path in (self._said, counted):
            path.unlink(missing_ok=True)
        return Ended(code, said, hung, operations)


def run(
    argv: list[str],
    folder: Path,
    fault: Fault = NOTHING,
    *,
    through_bin=False,
    limit: float | None = None,
) -> Ended:
    """A command from its start to its end."""
    return Running(argv, folder, fault, through_bin).wait(limit)


_limit = [3 * HANGS]


def expect(seconds: float) -> None:
    """Tells how long an undisturbed run takes here, so that a busy machine is no hang."""
    _limit[0] = max(_limit[0], HANGS + 8 * seconds)


_server: list[Any] = []


def context() -> Any:
    """The way processes are forked from one that has imported everything."""
    if not _server:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        _server.append(context)
    return _server[0]


class Tally:
    """Counts of one kind of fault."""

    def __init__(self, kind: str):
        self.kind = kind
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []

    def add(self, outcome: str, what: str = "", said: str = "") -> None:
        """One fault more, and how it went; what did not hold is told at the end."""
        assert outcome in OUTCOMES, outcome
        self.counts["tried"] += 1
        self.counts[outcome] += 1
        if outcome != "held":
            self.bad.append(f"{outcome}: {what}\n    " + "\n    ".join(said.splitlines()[-12:]))
            print(self.bad[-1], flush=True)  # `pytest -s` shows it at once

    def check(self, least: int = 1) -> None:
        """Fails if something did not hold, or too little was tried."""
        told = "\n".join(self.bad[:12])
        assert not self.bad, f"{self.kind}: {dict(self.counts)}\n{told}"
        assert self.counts["tried"] >= least, dict(self.counts)


@contextmanager
def tally(kind: str, least: int = 1) -> Iterator[Tally]:
    """Counts a kind, adds to the file that JAXREC_FAULTS names, and fails if one did not hold."""
    counted = Tally(kind)
    started = time.monotonic()
    yield counted
    where = os.environ.get("JAXREC_FAULTS")
    if where:
        with (Path(tempfile.gettempdir()) / "faults.lock").open(
            "w"
        ) as lock:  # of two pieces at once
            fcntl.flock(lock, fcntl.LOCK_EX)
            record(Path(where), counted, time.monotonic() - started)
    counted.check(least)


def record(path: Path, counted: Tally, seconds: float) -> None:
    """Adds counts to a file of results; those of the same kind on another commit are dropped."""
    provenance = {
        "command": "JAXREC_FAULTS=benchmarks/results/faults.json python -m pytest -m slow "
        "tests/faults",
        "seed": SEED,
        "device": f"cpu, {os.cpu_count()} cores",
        "commit": _git("rev-parse", "HEAD"),
        "versions": {
            name: metadata.version(name)
            for name in ("jax", "jaxlib", "orbax-checkpoint", "numpy", "pyarrow", "hypothesis")
        }
        | {"python": platform.python_version()},
    }
    found = json.loads(path.read_text()) if path.exists() else {}
    kinds = found.get("kinds", {})
    before = kinds.get(counted.kind, {})
    if before.get("commit") != provenance["commit"]:
        before = {}
    entry = {name: before.get(name, 0) + counted.counts[name] for name in ("tried", *OUTCOMES)}
    entry["seconds"] = round(before.get("seconds", 0.0) + seconds, 1)
    entry["commit"] = provenance["commit"]
    kinds[counted.kind] = entry
    malformed = {name for name in kinds if name.startswith("inputs")}
    total = {
        group: {
            name: sum(kinds[kind][name] for kind in sorted(members))
            for name in ("tried", *OUTCOMES)
        }
        for group, members in (("faults", set(kinds) - malformed), ("inputs", malformed))
    }
    found = {"total": total, "kinds": dict(sorted(kinds.items()))} | provenance
    path.write_text(json.dumps(found, indent=1) + "\n")


def _git(*words: str) -> str:
    done = subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def fresh(folder: Path, given: Path | None = None) -> Path:
    """An empty folder, or a copy of one, in place of what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    if given is None:
        folder.mkdir(parents=True)
    else:
        shutil.copytree(given, folder, symlinks=True)
    return folder
