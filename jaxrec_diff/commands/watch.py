"""Processes that work together under a parent: what ends one ends all, in one sentence.

A process that loses another is aborted by JAX's C++ with a stack trace, after ten seconds or at
once. Its parent keeps that to itself, sees what happened first, ends the rest and says it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from jaxrec_diff.commands import distributed

_LOOK_SECONDS = 0.05
_STOPPED_SECONDS = 5.0  # before JAX's heartbeats are missed
# What others have to end by themselves: after an error of one, as it may be an error of all; after
# a signal that all were told of, to save.
_ERROR_SECONDS, _SAVING_SECONDS = 3.0, 25.0
_SAVED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Tail:
    """The last lines that come through a pipe."""

    def __init__(self, read: int):
        self.lines: deque[str] = deque(maxlen=400)
        self._thread = threading.Thread(target=self._collect, args=(read,), daemon=True)
        self._thread.start()

    def _collect(self, read: int) -> None:
        stream: IO[str]
        with os.fdopen(read, errors="replace") as stream:
            self.lines.extend(stream)

    def text(self) -> str:
        self._thread.join(1.0)
        return "".join(self.lines)


@dataclass
class _Child:
    """A process, and what became of it."""

    number: int
    process: subprocess.Popen
    lifeline: int
    noise: _Tail  # what C++ says
    errors: _Tail | None  # what Python says, or None where it says it to the user
    code: int | None = None  # negative: minus the number of the signal that killed it
    stopped: int = 0  # the signal that holds it
    since: float = 0.0
    held: int = 0  # the same, once it held it for too long
    ended: bool = False  # by this parent

    def look(self) -> None:
        if self.code is not None:
            return
        pid, status = os.waitpid(self.process.pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
        if pid == 0:
            return
        if os.WIFSTOPPED(status):
            self.stopped, self.since = os.WSTOPSIG(status), time.monotonic()
        elif os.WIFCONTINUED(status):
            self.stopped = 0
        else:
            self.code = self.process.returncode = os.waitstatus_to_exitcode(status)

    def tell(self, signum: int) -> None:
        if self.code is None:
            os.kill(self.process.pid, signum)

    def failed(self) -> bool:
        if self.stopped and self.code is None and time.monotonic() - self.since > _STOPPED_SECONDS:
            self.held = self.stopped
        return self.held > 0 or self.code not in (None, 0)


def run(
    commands: Sequence[Sequence[str]],
    numbers: Sequence[int],
    environments: Sequence[Mapping[str, str]],
) -> int:
    """Runs processes until all have ended; the first of them speaks to the user.

    SIGINT, SIGTERM and SIGHUP are passed on.

    Args:
      commands: of each.
      numbers: of each among the processes of the whole run.
      environments: of each.

    Returns:
      The exit code of what failed first, 128 and its number for a signal, or 0.
    """
    children = [
        _start(command, number, environment, speaks=place == 0)
        for place, (command, number, environment) in enumerate(
            zip(commands, numbers, environments, strict=True)
        )
    ]
    asked: list[int] = []

    def pass_on(signum, frame):
        del frame
        asked.append(signum)
        for child in children:
            child.tell(signum)

    previous = {signum: signal.signal(signum, pass_on) for signum in _PASSED_ON}
    try:
        culprit = _watch(children)
    finally:
        for child in children:
            child.tell(signal.SIGKILL)
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if culprit is None:
        return 0
    code, sentence = _verdict(culprit, children, bool(asked))
    if sentence:
        print(f"error: {sentence}", file=sys.stderr)
    return code


def _start(
    command: Sequence[str], number: int, environment: Mapping[str, str], *, speaks: bool
) -> _Child:
    held, lifeline = os.pipe()
    noise_read, noise = os.pipe()
    errors_read, errors = (0, os.dup(2)) if speaks else os.pipe()
    process = subprocess.Popen(
        command,
        stdin=None if speaks else subprocess.DEVNULL,
        stdout=None if speaks else subprocess.DEVNULL,
        stderr=noise,
        pass_fds=(held, errors),
        env={**environment, **distributed.watched_by(held, errors)},
        process_group=0,  # a terminal's Ctrl-C comes once, through this parent
    )
    for each in (held, noise, errors):
        os.close(each)
    quiet = None if speaks else _Tail(errors_read)
    return _Child(number, process, lifeline, _Tail(noise_read), quiet)


def _watch(children: list[_Child]) -> _Child | None:
    """Looks on until all have ended; what failed first, or None."""
    culprit, until = None, float("inf")
    while any(child.code is None for child in children):
        time.sleep(_LOOK_SECONDS)
        for child in children:
            child.look()
        failed = [child for child in children if child.failed() and not child.ended]
        if failed and culprit is None:
            culprit = min(failed, key=_blame)
            until = time.monotonic() + _patience(culprit)
        elif failed and _blame(min(failed, key=_blame)) < _blame(culprit):
            culprit = min(failed, key=_blame)  # the others had noticed before this parent did
        if time.monotonic() > until:
            for child in children:
                child.ended = child.ended or (child.code is None and child is not culprit)
                child.tell(signal.SIGKILL)
    return culprit


def _patience(culprit: _Child) -> float:
    if culprit.held or (culprit.code or 0) < 0:
        return _LOOK_SECONDS
    return _SAVING_SECONDS if culprit.code in _SAVED else _ERROR_SECONDS


def _blame(child: _Child | None) -> int:
    """0 for what ends others, 1 for what others may have ended."""
    if child is None:
        return 2
    victim = child.code == distributed.LOST or (
        child.code == -signal.SIGABRT and distributed.reason(child.noise.text()) is not None
    )
    return int(victim and not child.held)


def _verdict(culprit: _Child, children: list[_Child], asked: bool) -> tuple[int, str]:
    """The exit code, and a sentence, or "" where the user has been told."""
    code, alone = culprit.code or 0, len(children) == 1
    others = "" if alone else "; all were ended"
    name = f"process {culprit.number}"
    if culprit.held:
        by = signal.Signals(culprit.held).name
        return 128 + culprit.held, f"{name} was stopped by {by} and did not go on{others}"
    if _blame(culprit):
        why = distributed.reason(culprit.noise.text()) or "another process is gone"
        told = culprit.code == distributed.LOST and culprit.errors is None
        return distributed.LOST, "" if told else f"{name} had to end: {why}{others}"
    if code < 0:
        by = signal.Signals(-code).name
        if asked and -code in _PASSED_ON:
            return 128 - code, ""
        return 128 - code, f"{name} was killed by {by}{_first_words(culprit)}{others}"
    if all(child.code == code for child in children) or alone:
        return code, ""
    said = _last_words(culprit)
    return code, f"{name} ended with exit code {code}{said}{others}"


def _last_words(child: _Child) -> str:
    lines = [line.strip() for line in (child.errors.text() if child.errors else "").splitlines()]
    said = [line for line in lines if line]
    return f" ({said[-1].removeprefix('error: ')})" if said else ""


def _first_words(child: _Child) -> str:
    """What C++ gave as its reason, without the trace."""
    fatal = [line.strip() for line in child.noise.text().splitlines() if line.startswith("F")]
    return f" ({fatal[0][:300]})" if fatal else ""
