"""Which questions go together, and what becomes of those that cannot be answered."""

import asyncio
import threading

import pytest

from jaxrec_diff.serving.batching import Batcher, Full


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 20))


class Answers:
    """Doubles, once it may; remembers what it was asked."""

    def __init__(self):
        self.asked, self.go = [], threading.Event()
        self.go.set()

    def __call__(self, kind, questions):
        self.asked.append((kind, list(questions)))
        assert self.go.wait(10)
        if "bad" in questions:
            raise RuntimeError("bad")
        return [2 * each for each in questions]


def test_what_waits_together_goes_together_by_kind_and_in_order():
    answers = Answers()

    async def all_of_it():
        async with Batcher(answers, rows=4, wait=0.01, waiting=100) as batcher:
            answers.go.clear()
            first = asyncio.create_task(batcher.ask("a", [1]))
            await asyncio.sleep(0.1)  # it is with the model now
            rest = [
                asyncio.create_task(batcher.ask(kind, questions))
                for kind, questions in (
                    ("a", [2, 3]), ("b", [4]), ("a", [5, 6, 7]), ("b", [8]), ("a", [9]), ("a", [0])
                )
            ]  # fmt: skip
            await asyncio.sleep(0.05)
            assert batcher.waiting == 9
            answers.go.set()
            found = await asyncio.gather(first, *rest)
            assert batcher.waiting == 0
            return found

    assert run(all_of_it()) == [[2], [4, 6], [8], [10, 12, 14], [16], [18], [0]]
    assert answers.asked == [
        ("a", [1]), ("a", [2, 3, 9, 0]), ("b", [4, 8]), ("a", [5, 6, 7])
    ]  # fmt: skip


def test_more_than_may_wait_are_refused_and_an_error_is_that_batch_alone():
    answers = Answers()

    async def all_of_it():
        async with Batcher(answers, rows=2, wait=0, waiting=3) as batcher:
            answers.go.clear()
            first = asyncio.create_task(batcher.ask("a", [1]))
            await asyncio.sleep(0.05)
            rest = [asyncio.create_task(batcher.ask("a", [each])) for each in ("bad", 2)]
            await asyncio.sleep(0.05)
            with pytest.raises(Full):
                await batcher.ask("a", [3, 4])
            gone = asyncio.create_task(batcher.ask("a", [5]))
            await asyncio.sleep(0.05)
            gone.cancel()
            answers.go.set()
            found = await asyncio.gather(first, *rest, return_exceptions=True)
            assert await batcher.ask("a", [6, 7]) == [12, 14]
            return found

    first, *rest = run(all_of_it())
    assert first == [2] and [str(each) for each in rest] == ["bad", "bad"]
    assert answers.asked == [("a", [1]), ("a", ["bad", 2]), ("a", [6, 7])]


def test_leaving_answers_what_still_waits():
    answers = Answers()

    async def all_of_it():
        async with Batcher(answers, rows=1, wait=0, waiting=9) as batcher:
            tasks = [asyncio.create_task(batcher.ask("a", [each])) for each in range(5)]
            await asyncio.sleep(0)
        return await asyncio.gather(*tasks)

    assert run(all_of_it()) == [[0], [2], [4], [6], [8]]
