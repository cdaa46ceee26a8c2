"""A command inside a process that was forked with everything imported, and what befalls it there.

Faults strike at a file operation of a number: the operations of Python that write below a folder,
as the interpreter's audit events tell them.
"""

import errno
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.utime")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
_FREES = ("os.remove", "os.rmdir", "os.truncate")  # what a full disk still allows


class Fault(NamedTuple):
    """What befalls a process at a file operation."""

    kind: str = ""  # "kill", "full", "readonly", "clock", "wait", or nothing
    at: int = 0  # before the operation of this number, from 1; 0 is never
    after: float = 0.0  # of a kill: seconds later
    jump: float = 0.0  # of a clock: seconds
    largest: int = 0  # bytes that a file may have, 0 for any; from the start


def run(argv: list[str], folder: str, said: str, environment: dict[str, str], fault: Fault) -> None:
    """Runs a command as `bin/` does, with its words in the file `said`."""
    os.setsid()
    os.chdir(folder)
    words = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.update(environment)
    if fault.largest:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, fault.largest))
    count = _watch(folder, fault)
    from jaxrec_diff import cli

    def told() -> None:
        sys.stdout.flush()
        Path(said + ".operations").write_text(str(count[0]))

    def end(code: int) -> None:
        told()
        os._exit(code)

    cli._end = end
    sys.argv = [str(cli.__file__), *argv]

    try:
        cli.script()
    finally:
        told()


def _watch(folder: str, fault: Fault) -> list[int]:
    """Counts the operations below a folder; strikes at one of them."""
    count, root = [0], os.path.join(folder, "")
    real = time.time

    def hook(event: str, args: tuple) -> None:
        if event not in _EVENTS:
            return
        path = args[0]
        if event == "open" and not (isinstance(args[2], int) and args[2] & _WRITING):
            return
        if not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(root):
            return
        if os.fspath(path).endswith(".operations"):
            return
        count[0] += 1
        if not fault.at or count[0] < fault.at:
            return
        if fault.kind == "kill" and count[0] == fault.at:
            if not fault.after:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.setitimer(signal.ITIMER_REAL, fault.after)  # ends the process at any moment
        elif fault.kind == "full" and event not in _FREES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        elif fault.kind == "readonly":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
        elif fault.kind == "clock" and count[0] == fault.at:
            time.time = lambda: real() + fault.jump
        elif fault.kind == "wait" and count[0] == fault.at:
            time.sleep(fault.after)

    sys.addaudithook(hook)
    return count
