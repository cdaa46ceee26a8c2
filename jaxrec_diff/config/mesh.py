"""How `mesh=data:4,model:2` lays devices out: batches over `data`, tables over `model`."""

import re
from typing import NamedTuple

from jaxrec_diff.ops import filled


class Axes(NamedTuple):
    """Devices along each axis."""

    data: int
    model: int


def parse(text: str) -> dict[str, int]:
    """Devices along each axis that is named.

    >>> parse("data:4, model:2"), parse("")
    ({'data': 4, 'model': 2}, {})

    Raises:
      ValueError: on other axes, an axis given twice, or a number of devices that no table is cut
        into.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, re.split(r"[,\s]+", text)):
        found = re.fullmatch(r"(data|model):([1-9]\d*)", part)
        if found is None:
            raise ValueError(f"mesh={text} is none: {part!r} is no axis; mesh=data:4,model:2 is")
        if found[1] in sizes:
            raise ValueError(f"mesh={text} names the axis {found[1]} twice; name it once")
        sizes[found[1]] = int(found[2])
    model = sizes.get("model", 1)
    if filled.MULTIPLE % model:
        near = min(2 ** (model.bit_length() - 1), filled.MULTIPLE)
        raise ValueError(
            f"mesh={text} cuts tables into {model} parts, but their rows divide by powers of two "
            f"up to {filled.MULTIPLE}; model:{near} does"
        )
    return sizes


def over(text: str, count: int) -> Axes:
    """The mesh of so many devices; those left by `model`, by default all, lie along `data`.

    >>> over("model:2", 8), over("", 8)
    (Axes(data=4, model=2), Axes(data=8, model=1))

    Raises:
      ValueError: on what `parse` refuses, and on a mesh of another number of devices.
    """
    sizes = parse(text)
    model = sizes.get("model", 1)
    data = sizes.get("data", max(count // model, 1))
    if data * model != count:
        near = model if count % model == 0 else 1
        raise ValueError(
            f"mesh={text} takes {data * model} devices, but there are {count}; "
            f"data:{count // near},model:{near} takes {count}"
        )
    return Axes(data, model)
