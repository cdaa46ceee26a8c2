"""From ids to questions and back: what a request asks of a model, and how its answer is written."""

from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.experiments.restore import Restored
from jaxrec_diff.inference import walks
from jaxrec_diff.serving.bodies import Lists, Path, Refused
from jaxrec_diff.serving.catalogue import Catalogue
from jaxrec_diff.serving.engine import PAGE_DRAWS, Answer, Engine, Question, Walk
from jaxrec_diff.serving.limits import Limits


class Row(NamedTuple):
    """One history of a request for lists."""

    name: Any  # raw id of its user, or its place
    question: Question | None  # None where nothing is known of it
    unknown: list  # ids that are no items


class Service:
    """A trained model and what its clients call its items."""

    def __init__(self, restored: Restored, engine: Engine, limits: Limits):
        self.engine, self._limits, self._restored = engine, limits, restored
        self._phase = restored.phase
        self.catalogue = Catalogue(restored.phase.dataset, engine.k)

    def answer(self, what: str, draws: int, questions: list[Question]) -> list[Any]:
        """Answers of the model to questions of one kind."""
        if what == "walk":
            return self.engine.walk(questions, draws)
        return self.engine.recommend(questions, draws)

    def rows(self, asked: Lists) -> tuple[list[Row], list]:
        """The histories that are asked about, and ids that nobody knows.

        Raises:
          Refused: where none of the users is known.
        """
        if asked.histories is not None:
            rows = [
                self._row(place, history, place, asked)
                for place, history in enumerate(asked.histories)
            ]
            return rows, [each for row in rows for each in row.unknown]
        users = asked.users or []
        found = [self.catalogue.known(user) for user in users]
        strangers = [user for user, known in zip(users, found, strict=True) if known is None]
        if len(strangers) == len(users):
            raise _nobody(strangers[0])
        rows = []
        for known in filter(None, found):
            question = Question(known.items, known.user, len(rows), asked.k, asked.include_seen)
            rows.append(Row(self.catalogue.user_id(known.user), question, []))
        return rows, strangers

    def _row(self, name: int, history: list, place: int, asked: Lists) -> Row:
        items, unknown = self.catalogue.numbers(history)
        question = Question(items, -1, place, asked.k, asked.include_seen)
        return Row(name, question if len(items) else None, unknown)

    def list_of(self, row: Row, answer: Answer | None, asked: Lists) -> dict[str, Any]:
        """The list of one history as JSON; of the most popular items where nothing is known."""
        fallback = answer is None
        if answer is None:
            items, counts = self.catalogue.popular[: asked.k], self.catalogue.counts[: asked.k]
            answer = Answer(items, counts, 0.0 if asked.draws > 1 else None, [items] * asked.draws)
        found: dict[str, Any] = {"user": row.name} | self._items(answer.items, answer.scores)
        found |= {"fallback": fallback, "unknown": row.unknown}
        if answer.spread is not None:
            found["spread"] = round(answer.spread, 6)
            found["draws"] = [self._items(items, None) for items in answer.draws]
        return found

    def walker(self, asked: Path) -> tuple[Question, list]:
        """The history whose walk is asked for, and ids of it that are no items.

        Raises:
          Refused: where there is no walk.
        """
        if self.engine.shown is None:
            raise Refused(404, self._no_walk())
        user, unknown = -1, list[Any]()
        if asked.user is not None:
            known = self.catalogue.known(asked.user)
            if known is None:
                raise _nobody(asked.user)
            user, items = known
        else:
            items, unknown = self.catalogue.numbers(asked.history or [])
        if not len(items):
            raise Refused(400, "no id of the history is known, so there is nothing to walk from")
        return Question(items, user, 0, asked.nearest, asked.include_seen), unknown

    def walk_of(self, walk: Walk) -> dict[str, Any]:
        """Walks as JSON."""
        shown = self.engine.shown or []
        draws = [
            [
                self._items(items[items > 0], scores[items > 0]) | {"place": int(place) or None}
                for items, scores, place in zip(*draw, strict=True)
            ]
            for draw in zip(*walk, strict=True)
        ]
        return {"steps": shown[-1], "shown": shown, "draws": draws}

    def user(self, raw: str) -> dict[str, Any]:
        """A known user as JSON.

        Raises:
          Refused: on a stranger.
        """
        known = self.catalogue.known(raw) if len(raw) <= self._limits.letters else None
        if known is None:
            raise _nobody(raw)
        items = self._items(known.items, None)
        return {"user": self.catalogue.user_id(known.user), "length": len(known.items)} | items

    def about(self) -> dict[str, Any]:
        """What is served, as JSON."""
        engine, limits = self.engine, self._limits
        walk: dict[str, Any] = {"steps": None, "why": self._no_walk()}
        if engine.shown is not None:
            walk = {"steps": engine.shown[-1], "places": engine.places}
            if not walks.ends_in_list(self._restored):
                walk["why"] = (
                    "lists are drawn from the law of a walk's end in closed form, so they are not "
                    "those that these walks end in"
                )
        return {
            "model": self._phase.title,
            "dataset": self._phase.dataset.name,
            "items": self.catalogue.num_items,
            "users": self.catalogue.num_users,
            "titles": self.catalogue.titled,
            "deterministic": engine.model.deterministic,
            "draws": 1 if engine.model.deterministic else PAGE_DRAWS,
            "walk": walk,
            "example_users": self.catalogue.examples(),
            "limits": {
                "body": limits.body,
                "histories": limits.histories,
                "history": limits.length,
                "k": engine.k,
                "draws": limits.draws,
                "nearest": engine.nearest,
            },
        }

    def _items(self, items: np.ndarray, scores: np.ndarray | None) -> dict[str, Any]:
        """Items by number, as JSON."""
        found: dict[str, Any] = {"items": self.catalogue.item_ids(items)}
        if self.catalogue.titled:
            found["titles"] = self.catalogue.titles(items)
        if scores is not None:
            found["scores"] = [float(f"{score:.7g}") for score in scores]
        return found

    def _no_walk(self) -> str:
        return (
            f"{self._phase.title}, with the settings of this run, has no reverse process to walk: "
            "its points come from one call"
        )


def _nobody(user: Any) -> Refused:
    shown = str(user) if len(str(user)) <= 60 else f"{str(user)[:57]}..."
    return Refused(404, f"no user {shown!r} is known")
