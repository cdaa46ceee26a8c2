"""Bytes of a file as UTF-8 text: decompressed, decoded, a bounded block at a time."""

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
LONGEST = 2**24  # bytes of a line
_BLOCK = 2**22
_FREE, _RATIO = 2**28, 200  # bytes that may come of a file, and how many of each of its own
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins with the mark of utf-16-le
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class Encoding(NamedTuple):
    """How the bytes of a file are text."""

    name: str
    skip: int  # bytes of its mark
    note: str = ""  # what was guessed, for the card


def suffix(path: Path) -> str:
    """The ending that tells the format, whatever compressed it.

    >>> suffix(Path("a/reviews.JSONL.gz"))
    '.jsonl'
    """
    inner = Path(path.stem) if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()


def compressed(path: Path) -> list[str]:
    """The ending that tells how a file is compressed, if it is."""
    ending = path.suffix.lower()
    return [ending] if ending in COMPRESSED else []


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The bytes of a file, decompressed by its ending.

    Raises:
      ValueError: if they cannot be read to their end.
    """
    kind = path.suffix.lower()
    try:
        if kind == ".zst":
            import pyarrow as pa

            file: Any = pa.input_stream(str(path), compression="zstd")
        else:
            ways: dict[str, Callable[..., Any]] = {
                ".gz": gzip.open,
                ".bz2": bz2.open,
                ".xz": lzma.open,
            }
            file = ways.get(kind, open)(path, "rb")
        with file:
            yield file
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(path, kind) from error
    except OSError as error:
        if kind in COMPRESSED and error.errno is None:
            raise _damaged(path, kind) from error
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def _damaged(path: Path, kind: str) -> ValueError:
    return ValueError(f"{path} is no whole {kind} file: it is damaged or cut short")


def blocks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes; a file that swells beyond all measure is refused."""
    size, total = path.stat().st_size, 0
    with opened(path) as file:
        while block := file.read(_BLOCK):
            total += len(block)
            if path.suffix.lower() in COMPRESSED and total > max(_FREE, _RATIO * size):
                raise ValueError(
                    f"{path} has {size:,} bytes and unpacks to more than {total:,}; unpack it "
                    "yourself if that is meant"
                )
            yield block


def encoding(path: Path) -> Encoding:
    """UTF-8, UTF-16 or UTF-32 by its mark or its zeros, or Latin-1 where UTF-8 it cannot be.

    Raises:
      ValueError: if it is none of them.
    """
    stream = blocks(path)
    head = next(stream, b"")
    for mark, name in _MARKS:
        if head.startswith(mark):
            if name != "utf-8":
                _check(path, name)
                return Encoding(name, len(mark), f"encoding: {name[:-3].upper()} by its mark")
            return _utf8(path, len(mark))
    zeros = [head[start:4096:2].count(0) for start in (0, 1)]
    share = 2 * max(zeros) / max(min(len(head), 4096), 1)
    most = share > 0.5  # of the letters are Latin; fewer may be ids that end in a zero
    if (most or (share > 0.3 and len(head) > 64)) and min(zeros) * 10 < max(zeros):
        name = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
        try:
            _check(path, name)
            return Encoding(name, 0, "encoding: UTF-16 by its zeros")
        except ValueError:
            if most:
                raise
    return _utf8(path, 0)


def _check(path: Path, name: str) -> None:
    decoder = codecs.getincrementaldecoder(name)()
    try:
        for block in blocks(path):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise ValueError(f"{path} begins as {name[:-3].upper()} and is not that later") from None


def _utf8(path: Path, skip: int) -> Encoding:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, bad, wide, zero = 1, None, False, False
    for block in blocks(path):
        zero |= b"\0" in block
        if bad is None:
            try:
                if not (block.isascii() and decoder.getstate()[0] == b""):
                    wide |= not decoder.decode(block).isascii()
            except UnicodeDecodeError as error:
                bad = error.object[error.start], lines + error.object.count(b"\n", 0, error.start)
        if bad is not None:
            wide |= not block.decode("utf-8", "ignore").isascii()
        lines += block.count(b"\n")
    if bad is None:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            bad = error.object[0], lines
    if bad is None:
        return Encoding("utf-8", skip)
    if wide or zero or skip:
        raise ValueError(
            f"{path} is no UTF-8 text: byte 0x{bad[0]:02x} in line {bad[1]}; name a text file, or "
            "convert it with iconv -f ENCODING -t UTF-8"
        )
    return Encoding("latin-1", 0, "encoding: Latin-1, since it is not UTF-8")


def text(path: Path, found: Encoding) -> Iterator[bytes]:
    """UTF-8 of a file in blocks that end with a line.

    Raises:
      ValueError: on a line of more than 16 MiB.
    """
    decoder = None if found.name == "utf-8" else codecs.getincrementaldecoder(found.name)()
    skip, rest = found.skip, b""
    for block in blocks(path):
        if skip:
            block, skip = block[skip:], 0
        if decoder is not None:
            block = decoder.decode(block).encode()
        block = rest + block
        cut = max(block.rfind(b"\n"), block.rfind(b"\r", 0, -1)) + 1
        if len(block) - cut > LONGEST:
            raise ValueError(
                f"{path} has a line of more than {LONGEST // 2**20} MiB; lines end with \\n"
            )
        rest = block[cut:]
        if cut:
            yield block[:cut]
    if decoder is not None:
        rest += decoder.decode(b"", final=True).encode()
    if rest:
        yield rest


def lines(path: Path, found: Encoding) -> Iterator[str]:
    """The lines of a file, without their ends; only \\n, \\r\\n and \\r end one."""
    for block in text(path, found):
        plain = block.decode()
        if "\r" in plain:
            plain = plain.replace("\r\n", "\n").replace("\r", "\n")
        yield from (plain[:-1] if plain.endswith("\n") else plain).split("\n")
