"""SIGINT and SIGTERM as a question that training asks between its updates."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Interrupted(RuntimeError):
    """A signal asked the run to stop; its number is `signum`."""

    def __init__(self, signum: int, workdir: Path):
        self.signum = signum
        super().__init__(
            f"stopped by {signal.Signals(signum).name}; the same command goes on from {workdir}"
        )


@contextmanager
def signals() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM; a second SIGINT does what it did before.

    Python lets the main thread alone handle signals: in another one none are collected.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def handle(signum, frame):
        before = previous[signal.SIGINT]
        if caught and signum == signal.SIGINT and callable(before):
            before(signum, frame)
        caught.append(signum)

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
