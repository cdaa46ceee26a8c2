"""Ways to damage bytes and files."""

import json
import random
from collections.abc import Callable
from pathlib import Path


def damaged(data: bytes, draw: random.Random, most: int = 3) -> bytes:
    """Bytes that are cut, flipped, doubled, spliced or overwritten at up to `most` places."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, most)):
        at = draw.randrange(len(changed))
        way = draw.randrange(6)
        if way == 0:
            del changed[at + 1 :]
        elif way == 1:
            changed[at] ^= 1 << draw.randrange(8)
        elif way == 2:
            changed[at:at] = changed[at : at + draw.randint(1, 40)]
        elif way == 3:
            del changed[at : at + draw.randint(1, 40)]
        elif way == 4:
            other = draw.randrange(len(changed))
            changed[at:at] = changed[other : other + draw.randint(1, 40)]
        else:
            changed[at : at + 4] = draw.randbytes(4)
        if not changed:
            break
    return bytes(changed)


def flip(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(len(data), 1))])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def overwrite(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(max(path.stat().st_size, 1)))


def other_json(path: Path, draw: random.Random) -> None:
    path.write_text(json.dumps(draw.choice([[], {}, None, 3, "x", [[1]], {"step": "x"}])) + "\n")


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    (path / "something").write_text("else")


# What befalls a file: other bytes, or none.
WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "flip": flip,
    "cut": cut,
    "empty": empty,
    "overwrite": overwrite,
    "other_json": other_json,
    "remove": remove,
    "folder": folder,
}
