"""A folder has one writer, and a dead one holds nothing."""

import errno
import fcntl
import os
import platform
import subprocess
import sys

import pytest

from jaxrec_diff.experiments import locks


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    with locks.writer(tmp_path):
        said = f"{tmp_path} is in use by process {os.getpid()} on {platform.node()}; wait for it"
        for shared in (False, True):
            with pytest.raises(ValueError, match=said), locks.writer(tmp_path, shared=shared):
                pass
    with locks.writer(tmp_path):  # freed at the end
        pass


def test_writers_of_files_of_their_own_share(tmp_path):
    with locks.writer(tmp_path, shared=True), locks.writer(tmp_path, shared=True):
        with pytest.raises(ValueError, match="in use"), locks.writer(tmp_path):
            pass
    with locks.writer(tmp_path):
        pass


def test_what_a_killed_owner_held_is_taken_over(tmp_path):
    program = (
        "import os, pathlib\nfrom jaxrec_diff.experiments import locks\n"
        f"held = locks.writer(pathlib.Path({str(tmp_path)!r})); held.__enter__(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 9
    assert (tmp_path / locks.NAME).read_text().split()[1] == platform.node()
    with locks.writer(tmp_path):
        assert (tmp_path / locks.NAME).read_text().split()[0] == str(os.getpid())


@pytest.mark.parametrize(
    ("owner", "free"),
    [
        ("", True), ("junk", True), (f"{2**22 + 1} {platform.node()}", True),
        (f"{os.getpid()} {platform.node()}", False), ("7 elsewhere", False),
    ],
    ids=["nobody", "no owner", "gone", "this process", "elsewhere"],
)  # fmt: skip
def test_without_locks_of_the_disk_the_name_counts(tmp_path, monkeypatch, owner, free):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / locks.NAME).write_text(owner)
    if free:
        with locks.writer(tmp_path):
            pass
        assert (tmp_path / locks.NAME).read_text() == ""
        return
    with pytest.raises(ValueError, match=f"in use by process {owner.split()[0]} on "):
        with locks.writer(tmp_path):
            pass
