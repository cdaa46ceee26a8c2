"""Batches of questions to a model, each answered by one compiled call.

A program is compiled for a number of rows, a length of histories and a number of draws, all of them
from short lists, and kept: no request compiles what another one had compiled before. The lists are
those of `inference.recommend`, as noise is keyed by the place of a history in its own request.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.evaluation import rank
from jaxrec_diff.experiments import restore
from jaxrec_diff.inference import histories, neighbours, program, walks
from jaxrec_diff.inference.program import Asked
from jaxrec_diff.inference.types import Histories
from jaxrec_diff.models import registry
from jaxrec_diff.ops import meshes, streams
from jaxrec_diff.serving.limits import Limits

_ROWS = (1, 8, 64)  # of a batch; what is left of it is filled up
_NARROWEST, _WIDER = 16, 4  # lengths of histories: 16, 64, 256, ...
PAGE_DRAWS = 4  # what the page asks for


class Question(NamedTuple):
    """One history."""

    items: np.ndarray  # i32[n] item numbers 1..I, oldest first
    user: int = -1  # number of the known user whose history it is
    row: int = 0  # place in its request
    k: int = 20
    include_seen: bool = False


class Answer(NamedTuple):
    """The list of one history."""

    items: np.ndarray  # i32[n], at most k
    scores: np.ndarray  # f32[n]
    spread: float | None  # of several draws
    draws: list[np.ndarray]  # the list of each, where there are several


class Walk(NamedTuple):
    """What is nearest along the reverse walks of one history."""

    items: np.ndarray  # i32[S, M, n]; of S draws, at M steps, 0 where no candidate is left
    scores: np.ndarray  # f32[S, M, n]
    place: np.ndarray  # i32[S, M], from 1, of the item that a draw ends in; 0 beyond the last


class Engine:
    """A trained model on its devices; one thread at a time may ask it."""

    def __init__(
        self,
        restored: restore.Restored,
        limits: Limits,
        *,
        seed: int | None = None,
        compiled: Callable[[str, float], None] = lambda name, seconds: None,
    ):
        """
        Args:
          restored: a trained model.
          limits: of questions.
          seed: of the sampler's noise; the run's by default.
          compiled: is told of every program that was compiled, and in how many seconds.
        """
        self._restored = restore.honest(restored)
        phase, self.model, self._params, state = self._restored
        self._state = rank.precompute(self.model, self._params, state)
        self._mesh, self._seed = phase.mesh, phase.settings.seed if seed is None else seed
        self._dataset = phase.dataset
        knows_users = registry.input_of(phase.settings.model).knows_users
        self._owners = neighbours.owners(phase.dataset) if knows_users else None
        self._compiled, self._programs = compiled, dict[tuple, Any]()
        self._rows = sorted({meshes.rounded(size, phase.mesh) for size in _ROWS})
        self.k = min(limits.k, phase.dataset.num_items)
        self.nearest = min(limits.nearest, phase.dataset.num_items)
        self.places = max(min(limits.places, phase.dataset.num_items), self.nearest)
        self.shown = self._shown(limits.shown)
        known = histories.known_users(phase.dataset)
        self._widths = widths(max(limits.length, int((known.end - known.start).max(initial=0))))

    @property
    def programs(self) -> int:
        """How many were compiled so far."""
        return len(self._programs)

    def warm(self) -> None:
        """Compiles what most requests and the page need, so that none of them waits for it."""
        one = Question(np.array([1], np.int32))
        for rows in self._rows:
            self.recommend([one] * rows, 1)
        draws = 1 if self.model.deterministic else PAGE_DRAWS
        self.recommend([one], draws)
        if self.shown is not None:
            self.walk([one], draws)

    def recommend(self, questions: Sequence[Question], draws: int) -> list[Answer]:
        """Lists of at most as many histories as a batch has rows."""
        (top, each), spread = self._call(self._lists, questions, draws)
        found = []
        for row, question in enumerate(questions):
            scores = top.scores[row][: question.k]
            real = top.items[row][: question.k] > 0
            lists = [] if each is None else [of[row][: question.k] for of in each]
            found.append(
                Answer(
                    top.items[row][: question.k][real],
                    scores[real],
                    None if spread is None else float(spread[row]),
                    [items[items > 0] for items in lists],
                )
            )
        return found

    def walk(self, questions: Sequence[Question], draws: int) -> list[Walk]:
        """The reverse walks of histories.

        Raises:
          ValueError: if the model has none.
        """
        if self.shown is None:
            raise ValueError("this model has no reverse process")
        top = self._call(self._walks, questions, draws)
        found = []
        for row, question in enumerate(questions):
            items, scores = top.items[:, row], top.scores[:, row]
            same = items == items[:, -1:, :1]
            place = np.where(same.any(axis=-1), same.argmax(axis=-1) + 1, 0)
            found.append(Walk(items[..., : question.k], scores[..., : question.k], place))
        return found

    def _lists(self, draws: int) -> Callable:
        keys = self._keys(draws)
        lists = program.lists(self._restored, keys=keys, k=self.k)

        def found(params, state, asked, k):
            found = lists(params, state, asked)
            if found.draws is None:
                return found, None
            kept = jnp.arange(self.k) < k[:, None]
            return found, program.spread(jnp.where(kept, found.draws, 0))

        return found

    def _walks(self, draws: int) -> Callable:
        assert self.shown is not None
        taken = np.array(self.shown)
        walk = walks.nearest(self._restored, keys=self._keys(draws), taken=taken, k=self.places)
        return lambda params, state, asked, k: walk(params, state, asked)

    def _keys(self, draws: int) -> list[jax.Array]:
        return [streams.draw(self._seed, number) for number in range(draws)]

    def _shown(self, most: int) -> list[int] | None:
        """How many reverse steps were taken at the points that are shown; None without any."""
        steps = walks.num_steps(self._restored)
        if steps is None:
            return None
        return np.unique(np.linspace(0, steps, min(steps + 1, most)).round()).astype(int).tolist()

    def _call(self, make: Callable, questions: Sequence[Question], draws: int) -> Any:
        """One compiled call for all questions, on the host."""
        rows = next(size for size in self._rows if size >= len(questions))
        longest = max(len(question.items) for question in questions)
        width = next(size for size in self._widths if size >= longest)
        history, hidden = np.zeros((2, rows, width), np.int32)
        user, row_id, k = np.zeros((3, rows), np.int32)
        for place, question in enumerate(questions):
            history[place, : len(question.items)] = question.items
            if not question.include_seen:
                hidden[place, : len(question.items)] = question.items
            row_id[place], k[place] = question.row, question.k
        user[: len(questions)] = self._users(questions)
        by_row = NamedSharding(self._mesh, P("data"))
        *placed, k = layout.put([row_id, user, history, hidden, k], by_row)
        given = self._params, self._state, Asked(*placed), k
        with jax.set_mesh(self._mesh):
            return jax.device_get(self._program(make, (rows, width, draws), given)(*given))

    def _program(self, make: Callable, shape: tuple[int, int, int], given: Any) -> Any:
        """The program of some rows, width and draws, compiled if nobody had asked for it."""
        name = make.__name__.removeprefix("_")
        if (name, *shape) not in self._programs:
            started = time.monotonic()
            everywhere = NamedSharding(self._mesh, P())
            lowered = jax.jit(make(shape[-1]), out_shardings=everywhere).lower(*given)
            self._programs[name, *shape] = lowered.compile()
            self._compiled(name, time.monotonic() - started)
        return self._programs[name, *shape]

    def _users(self, questions: Sequence[Question]) -> np.ndarray:
        """i32[n] users by number, with a stand-in where nobody is known."""
        user = np.array([question.user for question in questions], np.int32)
        if self._owners is None:
            return np.maximum(user, 0)
        sizes = [len(question.items) for question in questions]
        part = Histories(
            None,
            np.concatenate([question.items for question in questions]),
            np.append(0, np.cumsum(sizes)),
            user,
            np.zeros(len(questions), np.int32),
        )
        return neighbours.stand_ins(self._dataset, self._owners, part)


def widths(longest: int) -> list[int]:
    """Lengths that histories are filled up to.

    >>> widths(100)
    [16, 64, 256]
    """
    found = [_NARROWEST]
    while found[-1] < longest:
        found.append(found[-1] * _WIDER)
    return found
