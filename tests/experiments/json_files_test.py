"""The log of a run holds what is committed, whatever was written into it."""

import json

import pytest

from jaxrec_diff.experiments import json_files


def test_a_log_is_cut_to_whole_lines_of_committed_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    good = [{"step": step, "loss": 1 / step} for step in (8, 16, 24)]
    noise = ["[1]", "8", "null", '"step"', '{"step": null}', '{"step": "8"}', '{"loss": 1}', "{"]
    noise.append("[" * 100_000)
    lines = [json.dumps(line) for line in good]
    path.write_bytes("\n".join([noise[0], lines[0], *noise, *lines[1:]]).encode() + b"\n\xff{")
    assert json_files.read_lines(path) == good
    assert json_files.truncate_after(path, 16) == 1
    assert path.read_text() == "".join(line + "\n" for line in lines[:2])
    assert json_files.truncate_after(path, 0) == 2
    assert path.read_text() == ""
    assert json_files.truncate_after(tmp_path / "none.jsonl", 0) == 0
    assert json_files.read_lines(tmp_path / "none.jsonl") == []
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match="folder.jsonl is no file; move it away"):
        json_files.truncate_after(tmp_path / "folder.jsonl", 0)
