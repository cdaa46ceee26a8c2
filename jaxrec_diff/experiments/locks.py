"""One writer at a time in a folder."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "run.lock"


class InUse(ValueError):
    """Another process writes in a folder."""


_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextmanager
def writer(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds a folder for this process, which the system frees if the process dies.

    The file in it names the owner; of an owner that is gone it is taken over. On a disk without
    locks the name alone counts.

    Args:
      folder: which is there.
      shared: several may write, each a file of its own, but none beside one that is alone.

    Raises:
      InUse: if another process has it, naming that and its machine.
    """
    path = folder / NAME
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 300, 0).decode(errors="replace").split()
            if error.errno not in _NO_LOCKS or _alive(owner):
                raise InUse(
                    f"{folder} is in use by {_named(owner)}; wait for it, stop it, or take another "
                    "workdir"
                ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {platform.node()}\n".encode(), 0)
        try:
            yield
        finally:
            if not shared:
                os.ftruncate(file, 0)
    finally:
        os.close(file)


@contextmanager
def turn(path: Path) -> Iterator[None]:
    """Waits until no other process holds a file, which is made; on a disk without locks none is."""
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _named(owner: list[str]) -> str:
    if len(owner) != 2:
        return "another process"
    return f"process {owner[0]} on {owner[1]}"


def _alive(owner: list[str]) -> bool:
    """Whether the owner that a file names may still be there."""
    if len(owner) != 2 or not owner[0].isdecimal():
        return False
    if owner[1] != platform.node():
        return True  # nobody here can know
    try:
        os.kill(int(owner[0]), 0)
    except ProcessLookupError:
        return False
    except OverflowError:
        return False
    except PermissionError:
        return True
    return True
