"""Values of settings by their type hints: read from a flag's text, or checked where they are typed.

A hint is bool, int, float, str, a Literal, a tuple of these, `X | None`, or a class.
"""

import numbers
import re
import types
import typing
from typing import Any, Literal


def from_text(text: str, hint: Any) -> Any:
    """The value that a flag's text stands for.

    >>> from_text("8,16", tuple[int, ...]), from_text("none", float | None)
    ((8, 16), None)

    Raises:
      ValueError: without words, if it stands for none; see `described`.
    """
    if hint is str:
        return text
    if hint is bool:
        return text.lower() == "true" if text.lower() in ("true", "false") else _unfit()
    if hint in (int, float):
        return hint(text)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return text if text in args else _unfit()
    if origin is tuple:
        parts = [part for part in re.split(r"[,\s]+", text) if part]
        return tuple(map(from_text, parts, _elements(args, len(parts))))
    if type(None) in args:
        return None if text.lower() in ("none", "null") else from_text(text, _given(hint))
    return _unfit()


def checked(value: Any, hint: Any) -> Any:
    """A value as a setting holds it: a list as a tuple, a whole number as a float where one is
    asked for, numbers of numpy as Python's.

    >>> checked([8, 16], tuple[int, ...]), checked(3, float)
    ((8, 16), 3.0)

    Raises:
      ValueError: without words, if it is of another type; see `described`.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        fits = isinstance(value, kind) and type(value) is not bool
        return hint(value) if fits else _unfit()
    if origin is Literal:
        return value if isinstance(value, str) and value in args else _unfit()
    if origin is tuple:
        if not isinstance(value, tuple | list):
            _unfit()
        return tuple(map(checked, value, _elements(args, len(value))))
    if type(None) in args:
        return None if value is None else checked(value, _given(hint))
    return value if isinstance(value, hint) else _unfit()


def described(hint: Any) -> str:
    """What a value can be, to follow "it is".

    >>> described(Literal["jit", "pmap"]), described(int | None), described(tuple[float, float])
    ('one of jit, pmap', 'a whole number or none', '2 numbers')
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(args)}"
    if type(None) in args:
        return f"{described(_given(hint))} or none".replace(" or false or", ", false or")
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        plural = {int: "whole numbers", float: "numbers"}.get(args[0])
        return f"{count}{plural or f'values, each {described(args[0])}'}"
    single = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return single.get(hint, f"a {hint.__name__}")


def choices(hint: Any) -> tuple[str, ...]:
    """The words that a value, or an element of it, can be, or ()."""
    if hint is bool:
        return "true", "false"
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return tuple(map(str, args))
    return choices(args[0]) if typing.get_origin(hint) is tuple else ()


def _elements(args: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """The hints of a tuple's elements."""
    if args[-1] is Ellipsis:
        return args[:1] * count
    return args if len(args) == count else _unfit()


def _given(hint: Any) -> Any:
    """X of `X | None`."""
    (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return inner


def _unfit() -> typing.NoReturn:
    raise ValueError
