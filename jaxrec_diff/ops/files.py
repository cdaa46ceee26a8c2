"""Files that are there whole or not at all, and disks that take nothing more."""

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_unfinished: set[Path] = set()

# What a disk says when it takes nothing more, in the words of the system and of libraries.
_REASONS = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk is read-only",
}
# The same of a file that was written; of one that was read they say something else.
_OF_WRITTEN = {
    errno.EACCES: "permission is denied",
    errno.EPERM: "it is not permitted",
    errno.EIO: "the disk reports an error",
}
_WORDS = (
    (r"No space left on device|\bENOSPC\b|\d+ requested and \d+ written", errno.ENOSPC),
    (r"[Qq]uota exceeded|\bEDQUOT\b", errno.EDQUOT),
    (r"File too large|\bEFBIG\b", errno.EFBIG),
    (r"Read-only file system|\bEROFS\b", errno.EROFS),
)


class Unwritable(OSError):
    """A disk takes nothing more; `str` is a sentence for a user."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end of the block.

    If the block raises, what was written is removed and `path` stays as it was. A process that is
    killed leaves it behind; the next one writes over it.

    Raises:
      Unwritable: if the disk takes nothing more.
      ValueError: if another process writes the same file.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "figures.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("whole")
    >>> [file.name for file in Path(folder.name).iterdir()]
    ['figures.txt']
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path), _alone(partial, path):
        _unfinished.add(partial)
        try:
            yield partial
            _flush(partial)  # what is named is on the disk, whatever happens to the machine
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        finally:
            _unfinished.discard(partial)


def drop_unfinished() -> None:
    """Removes what is half written, before the process ends at once."""
    for partial in tuple(_unfinished):
        with suppress(OSError):
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Says in one sentence that the disk takes nothing more, whoever noticed it in the block.

    Args:
      place: what is written, where the error does not name it.

    Raises:
      Unwritable: in place of that error.
    """
    try:
        yield
    except Unwritable:
        raise
    except Exception as error:
        why = reason(error, place)
        if why is None:
            raise
        raise Unwritable(f"{place} cannot be written: {why}") from error


def reason(error: BaseException, place: Path | None = None) -> str | None:
    """Why a disk took nothing more, if that is behind an error; else None.

    Args:
      error: with all that it was raised from.
      place: where a permission that is missing counts too, as something was to be written there.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError):
            written = place is not None and str(one.filename).startswith(str(place))
            known = _REASONS | (_OF_WRITTEN if written else {})
            if one.errno in known:
                return known[one.errno]
        for words, number in _WORDS:
            if re.search(words, str(one)):
                return _REASONS[number]
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return None


@contextmanager
def _alone(partial: Path, path: Path) -> Iterator[None]:
    """Keeps other processes from writing to the same file; the system frees what the dead held."""
    file = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{path} is being written by another process; wait for it") from None
        except OSError:
            pass  # a disk without locks
        yield
    finally:
        os.close(file)


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a disk that knows no such thing
            raise
    finally:
        os.close(file)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to write to, which takes its place at the end of the block.

    `path` must be empty or not there. What a killed process left is begun again.

    Raises:
      Unwritable: if the disk takes nothing more.
      ValueError: if another process writes the same folder.
    """
    partial = path.with_name(path.name + ".partial")
    with writing(path), holding(partial, path):
        for left in partial.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        _unfinished.add(partial)
        try:
            yield partial
            os.replace(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        finally:
            _unfinished.discard(partial)


@contextmanager
def holding(folder: Path, what: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made; the system frees what the dead held.

    Raises:
      ValueError: if another process has it, which then writes `what`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            there = folder.exists() and os.path.samestat(os.fstat(opened), folder.stat())
        except BlockingIOError:
            there = False
        except OSError:
            there = True  # a disk without locks
        if not there:  # or it got its name while this process waited
            raise ValueError(f"{what} is being written by another process; wait for it")
        yield
    finally:
        os.close(opened)
