"""Words, lines for a terminal, and tables in markdown."""

import textwrap
from collections.abc import Iterable, Sequence


def counted(number: int, what: str) -> str:
    """A number and its noun.

    >>> counted(1, "unknown id"), counted(2000, "list")
    ('1 unknown id', '2,000 lists')
    """
    plural = what.removesuffix("y") + "ies" if what.endswith("y") else what + "s"
    return f"{number:,} {what if number == 1 else plural}"


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in markdown, without a last line break.

    >>> print(table(["name", "value"], [["a", "1"]]))
    | name | value |
    | --- | --- |
    | a | 1 |
    """
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def wrapped(text: str, width: int = 80) -> str:
    """Lines of a text, each cut to a width; what does not fit stands indented below."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        fits = len(line) <= width
        lines.append(line if fits else textwrap.fill(line, width, subsequent_indent=indent))
    return "\n".join(lines)
