"""Questions of many requests in one call.

A question that comes while nothing is under way waits a moment for others; those that come while a
batch is with the device make up the next one. What is asked in one batch is of one kind, since each
kind has a program of its own.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple


class Full(Exception):
    """More questions wait than may."""


class _Waiting(NamedTuple):
    kind: Hashable
    questions: Sequence[Any]
    answers: asyncio.Future


class Batcher:
    """Gathers questions and hands them on, a batch at a time, to one thread.

    Use it as an asynchronous context; leaving it answers what still waits.
    """

    def __init__(
        self,
        answer: Callable[[Any, list[Any]], list[Any]],
        *,
        rows: int,
        wait: float,
        waiting: int,
    ):
        """
        Args:
          answer: (kind, questions) -> an answer each, called in a thread of its own.
          rows: questions of a batch at most; a request may not have more.
          wait: seconds that the first question of an idle server waits for others.
          waiting: questions that may wait; `ask` raises `Full` beyond.
        """
        self._answer, self._rows, self._wait, self._most = answer, rows, wait, waiting
        self._queue: deque[_Waiting] = deque()
        self._there = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.waiting = 0
        """Questions that no batch has taken yet."""

    async def __aenter__(self) -> "Batcher":
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: Any) -> None:
        while self._queue:
            await asyncio.sleep(0.01)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._thread.shutdown()

    async def ask(self, kind: Hashable, questions: Sequence[Any]) -> list[Any]:
        """Answers to questions of one kind, in their order.

        Raises:
          Full: if too many questions wait.
        """
        if self.waiting + len(questions) > self._most:
            raise Full
        future = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(kind, questions, future))
        self.waiting += len(questions)
        self._there.set()
        return await future

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                self._there.clear()
                await self._there.wait()
                if self.waiting < self._rows:
                    await asyncio.sleep(self._wait)
            batch = self._take()
            if not batch:
                continue
            questions = [each for entry in batch for each in entry.questions]
            try:
                answers = iter(
                    await loop.run_in_executor(self._thread, self._answer, batch[0].kind, questions)
                )
            except Exception as error:
                for entry in batch:
                    if not entry.answers.done():
                        entry.answers.set_exception(error)
                continue
            for entry in batch:
                own = [next(answers) for _ in entry.questions]
                if not entry.answers.done():
                    entry.answers.set_result(own)

    def _take(self) -> list[_Waiting]:
        """The longest-waiting question, and those of its kind that fit beside it."""
        batch: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        rows = 0
        while self._queue:
            entry = self._queue.popleft()
            if entry.answers.cancelled():  # nobody waits for it any more
                self.waiting -= len(entry.questions)
            elif batch and entry.kind != batch[0].kind or rows + len(entry.questions) > self._rows:
                left.append(entry)
            else:
                batch.append(entry)
                rows += len(entry.questions)
                self.waiting -= len(entry.questions)
        self._queue = left
        return batch
