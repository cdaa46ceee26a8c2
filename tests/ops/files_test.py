"""A file is replaced whole or not at all."""

import errno

import pytest

from jaxrec_diff.ops import files


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with files.replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old" and partial.parent == tmp_path
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(tmp_path, raised):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(raised), files.replacing(path) as partial:
        partial.write_text("half")
        raise raised
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    path = tmp_path / "a.json"
    with files.replacing(path) as left:
        left.write_text("old")
    left.write_text("half of an earlier try")
    with files.replacing(path) as partial:
        assert partial == left
        partial.write_text("new")
    assert path.read_text() == "new" and not left.exists()


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(errno.ENOSPC, "x"), "no space is left on the disk"),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up"),
        (OSError(errno.EFBIG, "x"), "the file would be larger than is allowed here"),
        (OSError(errno.EROFS, "x"), "the disk is read-only"),
        (ValueError("DATA_LOSS: [OS error 28: ENOSPC No space left on device]"), "no space"),
        (OSError("4096 requested and 0 written"), "no space"),
        (ExceptionGroup("saving", [KeyError(1), OSError(errno.ENOSPC, "x")]), "no space"),
    ],
)
def test_a_disk_that_takes_nothing_more_is_one_sentence(tmp_path, error, why):
    path = tmp_path / "a.json"
    path.write_text("old")
    for raised in (error, RuntimeError("a thread failed")):
        if raised is not error:
            raised.__cause__ = error
        with pytest.raises(files.Unwritable, match=f"a.json cannot be written: {why}"):
            with files.replacing(path):
                raise raised
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_other_errors_and_what_was_only_read_stay_what_they_are(tmp_path):
    for error in (
        PermissionError(errno.EACCES, "denied", "/data/clicks.csv"), FileNotFoundError("x"),
        ValueError("bad"), OSError(errno.EIO, "error", "/data/clicks.csv"),
    ):  # fmt: skip
        with pytest.raises(type(error)) as caught, files.writing(tmp_path):
            raise error
        assert caught.value is error
    with pytest.raises(files.Unwritable, match="permission is denied"), files.writing(tmp_path):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "config.json"))


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    with files.replacing(tmp_path / "a.json") as partial:
        partial.write_text("first")
        with pytest.raises(ValueError, match="a.json is being written by another process"):
            with files.replacing(tmp_path / "a.json"):
                pass
        assert partial.read_text() == "first"
    assert (tmp_path / "a.json").read_text() == "first"


def test_what_is_unfinished_can_be_dropped_at_once(tmp_path):
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a.json") as partial:
        partial.write_text("half")
        files.drop_unfinished()
    assert not list(tmp_path.iterdir())


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "served"
    (tmp_path / "served.partial" / "old").mkdir(parents=True)  # as a kill leaves it
    with pytest.raises(KeyboardInterrupt), files.replacing_folder(path) as partial:
        assert not list(partial.iterdir())
        (partial / "half").write_text("x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    path.mkdir()
    with files.replacing_folder(path) as partial:
        (partial / "whole").write_text("x")
        with pytest.raises(ValueError, match="served is being written by another process"):
            with files.replacing_folder(path):
                pass
        assert (partial / "whole").exists() and not list(path.iterdir())
    assert [file.name for file in path.iterdir()] == ["whole"]
    assert [file.name for file in tmp_path.iterdir()] == ["served"]
