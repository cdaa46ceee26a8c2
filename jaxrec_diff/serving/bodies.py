"""What a request asks, read from JSON; what cannot be meant is refused in a sentence."""

import json
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

from jaxrec_diff.serving.limits import Limits

_SHOWN = 60  # letters of a value in a sentence


class Refused(Exception):
    """A request that gets no answer but a sentence."""

    def __init__(self, status: int, sentence: str, headers: dict[str, str] | None = None):
        super().__init__(sentence)
        self.status, self.headers = status, headers or {}


class Lists(NamedTuple):
    """A question for lists."""

    histories: list[list] | None  # of raw ids, oldest first
    users: list | None  # raw ids
    k: int
    draws: int
    include_seen: bool


class Path(NamedTuple):
    """A question for reverse walks."""

    history: list | None
    user: Any | None
    draws: int
    nearest: int
    include_seen: bool


def lists(body: bytes, limits: Limits, k: int) -> Lists:
    """Reads the body of a question for lists, `k` the longest there are.

    Raises:
      Refused: on what is no such question.
    """
    given = _object(body, Lists._fields)
    histories, users = given.get("histories"), given.get("users")
    if (histories is None) == (users is None):
        what = "both" if users is not None else "neither"
        _refuse(f'give either "histories" or "users", got {what}')
    if histories is not None:
        _listed("histories", histories, limits.histories, "histories")
        for place, each in enumerate(histories):
            _history(f"histories[{place}]", each, limits)
    if users is not None:
        _listed("users", users, limits.histories, "ids of users")
        for place, each in enumerate(users):
            _id(f"users[{place}]", each, limits)
    return Lists(
        histories,
        users,
        min(_whole(given, "k", min(20, k), limits.k), k),
        _whole(given, "draws", 1, limits.draws),
        _truth(given, "include_seen"),
    )


def path(body: bytes, limits: Limits, k: int) -> Path:
    """Reads the body of a question for walks, `k` the longest lists of a step.

    Raises:
      Refused: on what is no such question.
    """
    given = _object(body, Path._fields)
    history, user = given.get("history"), given.get("user")
    if (history is None) == (user is None):
        what = "both" if user is not None else "neither"
        _refuse(f'give either "history" or "user", got {what}')
    if history is not None:
        _history("history", history, limits)
    if user is not None:
        _id("user", user, limits)
    return Path(
        history,
        user,
        _whole(given, "draws", 1, limits.draws),
        min(_whole(given, "nearest", min(5, k), limits.nearest), k),
        _truth(given, "include_seen"),
    )


def text(given: str, limits: Limits) -> str:
    """A text that is searched for.

    Raises:
      Refused: on one that is too long.
    """
    if len(given) > limits.letters:
        _refuse(f"q has {len(given):,} letters; at most {limits.letters:,} are searched for")
    return given


def limit(given: str, limits: Limits) -> int:
    """How many items a search may find.

    Raises:
      Refused: on what is no such number.
    """
    if not (given.isascii() and given.isdecimal() and len(given) < 10):
        _refuse(f"limit must be a whole number from 1 to {limits.found}, got {_shown(given)}")
    return _inside("limit", int(given), limits.found)


def _object(body: bytes, known: tuple[str, ...]) -> dict[str, Any]:
    try:
        given = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        _refuse(f"the body is no UTF-8: byte {error.start} cannot be read")
    except json.JSONDecodeError as error:
        _refuse(f"the body is no JSON: {error.msg.lower()} at line {error.lineno}")
    except RecursionError:
        _refuse("the body is nested too deeply")
    except ValueError:  # a whole number of thousands of digits
        _refuse("the body holds a number that is too long")
    if not isinstance(given, dict):
        _refuse(f"the body must be an object with {_words(known)}, got {_shown(given)}")
    for name in given:
        if name not in known:
            near = get_close_matches(name[:_SHOWN], known, 1, 0.4)
            said = f'; the nearest is "{near[0]}"' if near else f"; there are {_words(known)}"
            _refuse(f"{_shown(name)} is no field{said}")
    return given


def _no_number(word: str) -> NoReturn:
    _refuse(f"the body holds {word}, which is no JSON")


def _listed(name: str, given: Any, most: int, of: str) -> None:
    if not isinstance(given, list):
        _refuse(f"{name} must be a list of {of}, got {_shown(given)}")
    if not given:
        _refuse(f"{name} is empty; ask for one at least")
    if len(given) > most:
        _refuse(f"{name} has {len(given):,} entries; at most {most:,} are answered at once")


def _history(name: str, given: Any, limits: Limits) -> None:
    if not isinstance(given, list):
        _refuse(f"{name} must be a list of ids of items, oldest first, got {_shown(given)}")
    if len(given) > limits.length:
        _refuse(
            f"{name} has {len(given):,} ids; at most {limits.length:,} are read, so send the latest"
        )
    for place, each in enumerate(given):
        _id(f"{name}[{place}]", each, limits)


def _id(name: str, given: Any, limits: Limits) -> None:
    if isinstance(given, bool) or not isinstance(given, str | int):
        _refuse(f"{name} must be an id, text or a whole number, got {_shown(given)}")
    if isinstance(given, int) and abs(given) >= 2**64:
        _refuse(f"{name} is a whole number beyond 64 bits, which is no id")
    if isinstance(given, str):
        if len(given) > limits.letters:
            _refuse(f"{name} has {len(given):,} letters; an id has at most {limits.letters:,}")
        if any("\ud800" <= letter <= "\udfff" for letter in given):
            _refuse(f"{name} holds half a letter (a lone surrogate), which is no text")


def _whole(given: dict[str, Any], name: str, default: int, most: int) -> int:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int):
        _refuse(f"{name} must be a whole number from 1 to {most}, got {_shown(value)}")
    return _inside(name, value, most)


def _inside(name: str, value: int, most: int) -> int:
    if not 1 <= value <= most:
        nearest = 1 if value < 1 else most
        _refuse(f"{name} must be from 1 to {most}, got {_shown(value)}; the nearest is {nearest}")
    return value


def _truth(given: dict[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        _refuse(f"{name} must be true or false, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as JSON has it, cut to a few letters."""
    said = _SPELLED.get(type(value), json.dumps)(value)
    return said if len(said) <= _SHOWN else f"{said[: _SHOWN - 3]}..."


# whole and nested values are named, as they may be huge
_SPELLED: dict[type, Callable[[Any], str]] = {
    list: lambda value: f"a list of {len(value):,}",
    dict: lambda value: f"an object of {len(value):,} fields",
    str: lambda value: json.dumps(value[:_SHOWN]),
    int: lambda value: str(value) if abs(value) < 10**30 else "a number of many digits",
}


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _refuse(sentence: str) -> NoReturn:
    raise Refused(400, sentence)
