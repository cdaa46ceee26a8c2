"""Odd questions get a sentence, and nothing is left half written."""

import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.inference import recommend, recommender


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--k=" + "9" * 30, "--history=1"], "--k must be a whole number of at most 2,147,483,647"),
        (["--k=" + "9" * 5000, "--history=1"], "--k must be a whole number of at most"),
        (["--k=0", "--history=1"], "of at least 1, got '0'"),
        (["--seeds=1000000000", "--history=1"], "seeds must be at most 1,000, got 1,000,000,000"),
        (["--output=FILE/x.csv"], "FILE"),
        (["--output=FOLDER.csv"], "FOLDER.csv"),
        (["--histories=deep.jsonl", "--output=out.csv"], "line 2 is no json"),
        (["--histories=deep.jsonl", "--output=out.parquet"], "line 2 is no json"),
        (["--histories=deep.jsonl", "--output=out.jsonl"], "line 2 is no json"),
    ],
)
def test_odd_questions_are_one_sentence(workdir, tmp_path, capsys, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    (tmp_path / "FOLDER.csv").mkdir()
    (tmp_path / "deep.jsonl").write_text("[1, 2]\n" + "[" * 200_000 + "]" * 200_000 + "\n")
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(["recommend", f"--workdir={workdir}", "--quiet", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_lists_are_no_longer_than_the_catalogue(workdir, capsys, tmp_path):
    assert cli.main(["recommend", f"--workdir={workdir}", "--history=3,4", "--k=1000000000"]) == 0
    said = capsys.readouterr()
    assert "warning: k=1000000000 is more than the 40 items there are; lists have 40" in said.err
    capped = said.out
    assert cli.main(["recommend", f"--workdir={workdir}", "--history=3,4", "--k=40"]) == 0
    assert capsys.readouterr().out == capped
    with pytest.warns(recommender.Capped):
        recommend.recommend(workdir, histories=[["3"]], k=10**12)


def test_more_histories_at_once_than_any_memory_holds_change_no_list(workdir, tmp_path):
    words = ["recommend", f"--workdir={workdir}", "--quiet"]
    for name, size in (("a.csv", "1000000000"), ("b.csv", "7")):
        assert cli.main([*words, f"--batch-size={size}", f"--output={tmp_path / name}"]) == 0
    one, other = (
        [line.split(",")[:3] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("a.csv", "b.csv")
    )
    assert one == other and len(one) > 100


def test_a_history_of_everything_is_said_to_leave_nothing(workdir, capsys, tmp_path):
    all_items = ",".join(map(str, range(40)))
    assert cli.main(["recommend", f"--workdir={workdir}", f"--history={all_items}"]) == 0
    assert capsys.readouterr().out.startswith("no candidate is left: every item is in the history")
    (tmp_path / "h.txt").write_text(f"{all_items}\n3 4\n")
    output = tmp_path / "lists.csv"
    flags = [f"--histories={tmp_path / 'h.txt'}", f"--output={output}"]
    assert cli.main(["recommend", f"--workdir={workdir}", *flags]) == 0
    assert "no candidate is left, as every item is in the history: 1 list" in (
        capsys.readouterr().err
    )


def test_one_endless_history_takes_no_more_memory_for_the_others(workdir, monkeypatch):
    rng = np.random.default_rng(0)
    histories = [rng.integers(40, size=size).tolist() for size in (3, 5, 2000, 1, 7, 64, 2, 9)]
    load = recommender.load(workdir, k=5, batch_size=16, include_seen=True)
    whole = recommend.recommend(load, histories=histories)
    shapes = []
    plain = recommender._padded

    def padded(part, size, width):
        shapes.append((size, width))
        return plain(part, size, width)

    monkeypatch.setattr(recommender, "_padded", padded)
    monkeypatch.setattr(recommender, "_CELLS", 2048)
    cut = recommend.recommend(load, histories=histories)
    np.testing.assert_allclose(
        np.array([each.scores for each in cut]), [each.scores for each in whole], rtol=1e-4
    )
    assert len(shapes) > 1 and max(rows * width for rows, width in shapes) <= 2048
