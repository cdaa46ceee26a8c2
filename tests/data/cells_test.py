"""Ids that a spreadsheet would run are written inert and read as they were."""

import csv

import numpy as np
import pyarrow as pa
import pytest

from jaxrec_diff import cli
from jaxrec_diff.data import ids, sources
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.formats import cells
from jaxrec_diff.inference import files
from jaxrec_diff.inference.types import Lists

STARTS = ("=", "+", "-", "@", "\t", "\r")
ODD = [
    "=1+1",
    "+1",
    "-2",
    "@SUM(A1)",
    "\ttab",
    "'=a",
    "'a",
    "''",
    "'",
    "=",
    'a"=',
    "a=1",
    "-nan",
    "7",
]


def rows(path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def written(path, pieces, **how):
    with cells.writer(path, **how) as append:
        for users, items in pieces:
            append(pa.table({"user": users, "item": items, "score": [-0.5] * len(users)}))


def read(path):
    columns = sources.read(str(path), DataConfig()).tables["all"]
    return [ids.to_arrow(each).to_pylist() for each in (columns.users, columns.items)]


def test_odd_ids_come_back_and_no_cell_is_a_formula(tmp_path):
    path = tmp_path / "lists.csv"
    written(path, [(ODD, ODD[::-1])])
    head, *body = rows(path)
    assert head == ["user", "item", "score", cells.MARK]
    assert {row[3] for row in body} == {"'"} and {row[2] for row in body} == {"-0.5"}  # a number
    assert not any(text.startswith(STARTS) for row in body for text in row[:2])
    assert read(path) == [ODD, ODD[::-1]]
    # by the other reader of quotes, too
    path.write_text(path.read_text().replace('"a=1"', 'a=1 "'))
    assert read(path) == [[text if text != "a=1" else 'a=1 "' for text in each]
                          for each in (ODD, ODD[::-1])]  # fmt: skip


def test_a_carriage_return_is_inert(tmp_path):
    path = tmp_path / "lists.csv"
    written(path, [(["\ra"], ["b"])])
    assert rows(path)[1][0] == "'\ra"


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_a_piece_that_needs_the_mark_late_gives_it_to_all(tmp_path, ending):
    path, how = tmp_path / f"lists.{ending}", {"separator": "\t"} if ending == "tsv" else {}
    plain = ["a", "b,", "NA"] if ending == "csv" else ["a", "b,", "c"]
    pieces = [(plain, ["x"] * 3), (["c"], ["y"]), (["=d"], ["'z"]), (["e"], ["y"])]
    written(path, pieces, **how)
    assert read(path) == [[*plain, "c", "=d", "e"], ["x", "x", "x", "y", "'z", "y"]]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    if ending == "csv":
        head, *body = rows(path)
        assert head[3] == cells.MARK and all(row[2:] == ["-0.5", "'"] for row in body)


def test_a_file_without_such_ids_has_no_mark(tmp_path):
    path = tmp_path / "lists.csv"
    written(path, [(["a", "b"], [-3, 4])])  # numbers stay numbers
    assert path.read_text() == '"user","item","score"\n"a",-3,-0.5\n"b",4,-0.5\n'
    assert read(path)[1] == [-3, 4]
    written(path, [(["=a", "b"], ["'a", "c"])], escape=False)
    assert rows(path)[1] == ["=a", "'a", "-0.5"] and read(path) == [["=a", "b"], ["'a", "c"]]


def test_a_foreign_file_keeps_its_spelling(tmp_path):
    path = tmp_path / "clicks.csv"
    path.write_text("user,item\n'=a,'a\n'-1,''b\n")
    assert read(path) == [["'=a", "'-1"], ["'a", "''b"]]


def test_lists_are_read_back(tmp_path):
    """What `bin/recommend` writes, as `--data` and `--histories` read it."""
    names, items = pa.array(["=u", "'v"]), pa.array(["@a", "b", "-c"])
    ranked, scores = np.array([[1, 2], [3, 0]]), np.array([[0.5, -0.25], [0.5, 0.0]])
    lists = Lists(names, ranked, scores, None, np.zeros(2, bool), np.zeros(2, int))
    path = tmp_path / "lists.csv"
    with files.writer(path, items) as write:
        write(lists)
    assert rows(path)[0][-1] == cells.MARK
    assert read(path) == [["=u", "=u", "'v"], ["@a", "b", "-c"]]
    (raw,) = files.read_histories(path, DataConfig())
    assert raw.names.to_pylist() == ["'v", "=u"] and raw.ids.to_pylist() == ["-c", "@a", "b"]
    with files.writer(path, items, csv_escape=False) as write:
        write(lists)
    assert rows(path)[1][:3] == ["=u", "1", "@a"]


def test_convert_writes_them_inert_unless_told_not_to(tmp_path, capsys):
    source, output = tmp_path / "clicks.csv", tmp_path / "out.csv"
    source.write_text("user,item,rating\n=u,'a,-1.5\nv,@b,2\n")
    command = ["convert", f"--data={source}", f"--output={output}"]
    assert cli.main(command) == 0
    assert output.read_text() == (
        '"user_id","item_id","rating","jaxrec_escape"\n"\'=u","\'\'a",-1.5,"\'"\n"v","\'@b",2,"\'"\n'
    )
    assert read(output) == read(source) == [["=u", "v"], ["'a", "@b"]]
    assert cli.main([*command, "--csv-escape=false"]) == 0
    assert rows(output)[1] == ["=u", "'a", "-1.5"]
    assert cli.main([*command, "--csv-escape=yes"]) == 2
    assert "--csv-escape is true or false, got 'yes'" in capsys.readouterr().err
