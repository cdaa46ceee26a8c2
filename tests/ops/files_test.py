"""A file is replaced whole or not at all."""

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
