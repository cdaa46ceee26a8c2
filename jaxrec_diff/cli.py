"""`bin/NAME` and `jaxrec-diff NAME`: runs one of the commands.

Exit codes: 0 done, 2 input that cannot be used (one sentence on stderr, nothing written), 3 a loss
that stopped being a number, 4 a disk that takes nothing more (full, read-only, a quota; one
sentence, and what was saved before is whole), 75 where another process of the run was lost, 130 and
143 after SIGINT and SIGTERM with the state saved, 141 when nobody reads on.
"""

import importlib
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from jaxrec_diff.commands import COMMANDS, distributed
from jaxrec_diff.commands.terminal import explain, refuse
from jaxrec_diff.ops import files

_FULL = 4
_PATIENCE = 3.0  # seconds


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned(warnings.showwarning)
            code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as `| head` does
        _say_no_more()
        return 128 + signal.SIGPIPE
    except OSError as error:
        _say_no_more()
        why = files.reason(error)
        if why is None:
            raise
        refuse(f"standard output cannot be written: {why}")
        return _FULL


def _say_no_more() -> None:
    """Python's own flush at the end has to fail no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in (["--help"], ["-h"], ["help"]):
        return explain(_index())
    if "--version" in argv[:2]:
        from jaxrec_diff import _version

        print(f"jaxrec-diff {_version.__version__}")
        return 0
    if not argv or argv[0] not in COMMANDS:
        return refuse(f"expected one of {', '.join(COMMANDS)}, got {argv[:1] or 'nothing'}")
    try:
        watched = distributed.is_watched()
        if watched:
            distributed.take_files()
        cluster, argv = distributed.split(argv)
        if cluster is None:
            return _command(argv)
        if watched:
            return _one_of_several(cluster, argv)
        from jaxrec_diff.commands import launch

        return launch.alone(cluster)
    except BrokenPipeError:
        raise
    except Exception as error:
        code = None if os.environ.get("JAXREC_TRACEBACK") else _refused(error)
        if code is None:
            raise
        return code
    except KeyboardInterrupt:
        print("stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT


def _command(argv: list[str]) -> int:
    return importlib.import_module(f"jaxrec_diff.commands.{argv[0]}").run(argv[1:])


def _refused(error: Exception) -> int | None:
    """Says in a sentence what a user can do about an error; the exit code, or None if nothing."""
    why = files.reason(error)
    if isinstance(error, files.Unwritable) or why is not None:
        said = str(error) if isinstance(error, files.Unwritable) else f"a write failed: {why}"
        refuse(f"{said}; what was saved before is whole, and the same command goes on")
        return _FULL
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return refuse(f"{error.filename} cannot be used: {error.strerror.lower()}")
    if isinstance(error, ValueError | OSError):
        return refuse(getattr(error, "strerror", None) or str(error))
    return None


def _one_of_several(cluster: distributed.Cluster, argv: list[str]) -> NoReturn:
    """Runs a command together with other processes, and ends this one.

    Whatever ends it early ends it at once: the others would wait for it, and it for them.
    """
    code: int | None = None
    try:
        distributed.join(cluster)
        code = _command(argv)
        if code == 0:
            distributed.part()
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except Exception as error:
        gone = distributed.reason(str(error))
        if gone is not None:
            refuse(f"{gone}; the same command goes on from what is saved")
            code = distributed.LOST
        else:
            code = _refused(error)
        if code is None or os.environ.get("JAXREC_TRACEBACK"):
            traceback.print_exc()
    distributed.leave(1 if code is None else code)


def _index() -> str:
    """The commands with a line each."""
    lines = "\n".join(f"  {f'bin/{name}':<15} {what}" for name, what in COMMANDS.items())
    return f"{lines}\n\nEach says more by --help; bin/train --list names the models."


def _warned(others: Callable[..., None]) -> Callable[..., None]:
    """Says a warning of this package in a line; `others` show those of others."""

    def show(message, category, *rest, **more) -> None:
        if category.__module__.startswith("jaxrec_diff"):
            print(f"warning: {message}", file=sys.stderr)
        else:
            others(message, category, *rest, **more)

    return show


def script() -> None:
    """The program `jaxrec-diff` of an installed package."""
    signal.signal(signal.SIGINT, _interrupted)
    code = main()
    if code:
        _leave_behind(code)
    sys.exit(code)


def _leave_behind(code: int) -> None:
    """Ends a command that failed without waiting for what its threads wait for.

    Of a checkpoint that could not be begun, Orbax's threads expect news for ten minutes. Threads of
    libraries that are only just starting abort a process that ends as usual, seldom, and lose its
    exit code.
    """
    end = time.monotonic() + _PATIENCE
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon:
            continue
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            break
    _end(code)


def _end(code: int) -> None:
    """Ends the process as it is."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _interrupted(signum: int, frame: Any) -> None:
    """Ends the process at once: an exception raised here could be lost in a callback of JAX."""
    del signum, frame
    files.drop_unfinished()
    with suppress(OSError):
        os.write(sys.stderr.fileno(), b"stopped by SIGINT\n")
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    script()
