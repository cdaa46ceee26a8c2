"""`bin/NAME` and `jaxrec-diff NAME`: runs one of the commands.

Exit codes: 0 done, 2 input that cannot be used (one sentence on stderr, nothing written), 3 a loss
that stopped being a number, 130 and 143 after SIGINT and SIGTERM with the state saved, 141 when
nobody reads on.
"""

import importlib
import os
import signal
import sys
import warnings
from collections.abc import Callable

from jaxrec_diff.commands import COMMANDS
from jaxrec_diff.commands.terminal import refuse


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warned(warnings.showwarning)
            code = _run(argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as `| head` does; Python's own flush at the end has to fail no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(argv: list[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] not in COMMANDS:
        return refuse(f"expected one of {', '.join(COMMANDS)}, got {argv[:1] or 'nothing'}")
    try:
        return importlib.import_module(f"jaxrec_diff.commands.{argv[0]}").run(argv[1:])
    except (ValueError, FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if os.environ.get("JAXREC_TRACEBACK"):
            raise
        return refuse(str(error))
    except KeyboardInterrupt:
        return 130


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
    sys.exit(main())


if __name__ == "__main__":
    script()
