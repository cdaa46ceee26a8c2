"""Words and lines for a terminal."""

import textwrap


def counted(number: int, what: str) -> str:
    """A number and its noun.

    >>> counted(1, "unknown id"), counted(2000, "list")
    ('1 unknown id', '2,000 lists')
    """
    plural = what.removesuffix("y") + "ies" if what.endswith("y") else what + "s"
    return f"{number:,} {what if number == 1 else plural}"


def wrapped(text: str, width: int = 80) -> str:
    """Lines of a text, each cut to a width; what does not fit stands indented below."""
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        fits = len(line) <= width
        lines.append(line if fits else textwrap.fill(line, width, subsequent_indent=indent))
    return "\n".join(lines)
