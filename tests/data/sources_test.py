"""Files, folders and databases of the shapes that people have, each with its right reading."""

import bz2
import gzip
import lzma
import os
import sqlite3
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff.data import decode, sources
from jaxrec_diff.data.config import DataConfig

HEAD = "user_id,item_id\n"
CLOCK = 881250949


@pytest.fixture
def put(tmp_path):
    """A function that writes a file of text or bytes below the test's folder."""

    def write(name, data, encoding="utf-8"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
        return path

    return write


def read(path, **settings):
    """(users, items, times) of a table."""
    columns = sources.read(str(path), DataConfig(**settings)).tables["all"]
    times = None if columns.times is None else columns.times.tolist()
    return columns.users.tolist(), columns.items.tolist(), times


def refusal(path, **settings):
    with pytest.raises(ValueError) as caught:
        sources.read(str(path), DataConfig(**settings))
    said = str(caught.value)
    assert "\n" not in said and "np.str_" not in said and "np.float" not in said and len(said) < 400
    return said


def test_a_quote_in_a_tab_file_is_a_letter(put):
    text = 'user_id\titem_id\tts\ttitle\n1\t1\t1\t"Heroes\n1\t2\t2\tx\n2\t"3"\t3\ty\n'
    for name in ("a.tsv", "a.inter", "a.txt"):
        assert read(put(name, text)) == ([1, 1, 2], ["1", "2", '"3"'], [1, 2, 3])
    assert read(put("a.dat", '1::1::5::1\n1::"2::4::2\n')) == ([1, 1], ["1", '"2'], [1, 2])


@pytest.mark.parametrize("later", ["x", '"x"', "x\n3,4,5,y"])
def test_an_open_quote_in_a_csv_is_named_with_its_line(put, later):
    head = "user_id,item_id,ts,title\n7,7,7,fine\n"
    assert "quote in line 3" in refusal(put("a.csv", f'{head}1,1,1,"Heroes\n1,2,2,{later}\n'))


def test_quotes_that_close_are_read_whatever_they_hold(put):
    head = "user_id,item_id,ts,title\n"
    rows = '1,1,1,"a\nb"\n1,2,2,"x, ""z"""\n2,"3",3,\n'
    want = ([1, 1, 2], [1, 2, 3], [1, 2, 3])
    assert read(put("a.csv", head + rows)) == want
    assert read(put("a.csv", head + '1,1,1,5" disk\n' + rows[rows.index("1,2") :])) == want
    # line ends inside quotes, beyond a block of the reader
    long = "".join(f'{n % 7},{n},{n},"two\nlines {"x" * 60}"\n' for n in range(90_000))
    assert len(long) > 2**22
    users, items, times = read(put("b.csv", head + long))
    assert items == times == list(range(90_000)) and users == [n % 7 for n in range(90_000)]
    soon = '1,1,1,"a\nb"\n1,2,soon,"x"\n'
    assert "'soon' in row 2 (line 4)" in refusal(put("a.csv", head + soon))
    assert "line 4 has 2 fields" in refusal(put("a.csv", head + '1,1,1,"a\nb"\n1,2\n'))


def test_quoted_words_for_nothing_are_ids(put):
    assert read(put("a.csv", HEAD + '1,"NA"\n1,NA\n2,"null"\n2,x\n2,\n'))[1] == ["NA", "null", "x"]


@pytest.mark.parametrize(
    "text",
    ["1 5 300\n1 6 100\n1 7 200\n", "1\t5\t3\n1\t6\t1\n1\t7\t2\n", "1,5,3\n1,6,1\n1,7,2\n"],
)
def test_a_third_column_without_a_name_is_asked_for(put, text):
    path = put("a.txt", text)
    assert "--data.columns=user,item,time" in refusal(path)
    assert read(path, columns="user,item,rating") == ([1, 1, 1], [5, 6, 7], None)
    times = read(path, columns="user,item,time")[2]
    assert np.argsort(times).tolist() == [1, 2, 0]
    lines = read(path, columns="user,items")
    assert len(lines[1]) == 6 and lines[2] is None


def test_clocks_are_known_by_their_size(put):
    path = put("a.txt", f"1 5 {CLOCK}\n1 6 {CLOCK - 9}\n")
    assert read(path) == ([1, 1], [5, 6], [CLOCK, CLOCK - 9])
    notes = sources.read(str(path), DataConfig()).notes
    assert "columns by place: user_id, item_id, timestamp" in notes
    assert read(put("u.data", f"1\t5\t3\t{CLOCK}\n")) == ([1], [5], [CLOCK])
    # a time in the place of the rating is a question
    assert "may be several things" in refusal(put("b.txt", f"1 5 {CLOCK} 3\n"))


@pytest.mark.parametrize("text", ["1 5 6 7\n2 5 6 8\n", "1 5 6 7 9\n2 5 6 8 9\n"])
def test_lines_of_equal_length_are_a_question(put, text):
    path = put("a.txt", text)
    assert "user,items" in refusal(path)
    users, items, times = read(path, columns="user,items")
    words = [line.split() for line in text.splitlines()]
    assert items == [int(word) for line in words for word in line[1:]] and times is None
    assert users == [int(line[0]) for line in words for _ in line[1:]]


def test_lines_of_items(put):
    want = ([1, 1, 1, 2, 2, 3], [5, 6, 7, 5, 6, 1], None)
    assert read(put("a.txt", "1 5 6 7\n2 5 6\n3 1\n4\n\n")) == want
    assert read(put("a.txt", "1  5 6 7 \r\n2 5 6\r\n3 1\r\n4")) == want
    assert read(put("a.csv", "1,5,6,7\n2,5,6\n3,1\n"), columns="user,items") == want
    assert read(put("a.txt", "5 6 7\n5 6\n1\n"), columns="items")[0] == [0, 0, 0, 1, 1, 2]
    assert read(put("b.txt", "1 5\n1 6\n2 5\n")) == ([1, 1, 2], [5, 6, 5], None)
    assert read(put("c.txt", "user items\n1 2 3\n"), columns="user,items") == ([1, 1], [2, 3], None)
    assert read(put("c.txt", "u1 b\nu1 a c\n"), columns="user,items")[1] == ["b", "a", "c"]


def test_two_columns_of_one_name_are_refused(put, tmp_path):
    assert "two columns 'item_id'" in refusal(put("a.csv", "user_id,item_id,item_id\n1,2,3\n"))
    said = refusal(put("a.csv", "user_id,Item_ID,item-id\n1,2,3\n"))
    assert "'Item_ID' and 'item-id'" in said
    assert read(tmp_path / "a.csv", item="Item_ID")[1] == [2]
    assert "two fields 'user'" in refusal(put("a.jsonl", '{"user":1,"user":2,"item":3}\n'))
    table = pa.Table.from_arrays([pa.array([1])] * 3, ["user_id", "item_id", "item_id"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "two columns 'item_id'" in refusal(tmp_path / "a.parquet")


def test_headers_of_many_kinds(put):
    assert read(put("a.csv", "User ID,Item ID,Star Rating\n1,2,3\n")) == ([1], [2], None)
    text = '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n'
    assert read(put("a.csv", text)) == ([276725], ["034545104X"], None)
    assert read(put("a.csv", "\n\nuser_id,item_id\n\n1,2\n")) == ([1], [2], None)
    assert read(put("a.csv", "user_id, item_id\n1, 33\n2, a b\n"))[1] == ["33", "a b"]
    assert read(put("a.csv", "1, 33\n2, 34\n"))[1] == [33, 34]
    assert read(put("a.txt", "1   33\n 2  34 \n")) == ([1, 2], [33, 34], None)
    assert read(put("a.csv", "user_id|item_id\n1|a,b\n"))[1] == ["a,b"]
    known = ("parent_asin", "business_id", "venue_id", "track_id", "movieId", "asin", "isbn")
    for name in known:
        assert read(put("a.csv", f"reviewerID,{name},overall\nA,B,3\n")) == (["A"], ["B"], None)


def test_columns_are_told_by_place(put):
    path = put("a.csv", "A1,B1,5.0,1390000000\nA2,B2,4.0,1390000001\n")
    assert "--data.columns=user,item,time" in refusal(path)
    assert read(path, columns="user,item,-,time") == (
        ["A1", "A2"],
        ["B1", "B2"],
        [1390000000, 1390000001],
    )
    assert read(path, columns="item,user,rating,time")[0] == ["B1", "B2"]
    assert "names 3 columns" in refusal(path, columns="user,item,time")
    titled = put("b.csv", "who,what,when\n1,2,3\n")
    assert read(titled, columns="user,item,time") == ([1], [2], [3])
    for bad in ("user,time", "user,user,item", "user,item,when", "user,item,items"):
        with pytest.raises(ValueError, match="data.columns"):
            DataConfig(columns=bad)
    with pytest.raises(ValueError, match="both name columns"):
        DataConfig(columns="user,item", user="who")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("head", [HEAD, ""])
def test_encodings(put, encoding, head):
    text = head + "1,33\n2,44\n" + ("2,é\n" if head else "")
    want = ([1, 2, 2], ["33", "44", "é"]) if head else ([1, 2], [33, 44])
    assert read(put("a.csv", text, encoding))[:2] == want


def test_what_is_no_text_is_named(put):
    assert "byte 0xff in line 3" in refusal(put("a.csv", (HEAD + "1,é\n").encode() + b"2,\xff\n"))
    assert "UTF-16" in refusal(put("a.csv", (HEAD + "1,2\n").encode("utf-16") + b"\0"))
    assert refusal(put("a.csv", os.urandom(500)))


def test_lines_end_only_where_they_do(put):
    odd = ["a\x0bb", "a\x1cb", "a\u2028b", "a\x85b"]
    rows = "".join(f"1,{one}\n" for one in odd)
    assert read(put("a.csv", HEAD + rows))[1] == odd
    assert read(put("a.csv", HEAD.replace("\n", "\r") + "1,2\r2,b\r"))[1] == ["2", "b"]
    assert read(put("a.csv", HEAD.replace("\n", "\r\n") + "1,2\r\n2,b\r\n"))[1] == ["2", "b"]


def test_ratings_that_nobody_asked_for_may_hold_anything(put):
    path = put("a.csv", 'user_id,item_id,rating\n1,2,"1,5"\n1,3,good\n2,3,4/5\n2,4,inf\n2,5,-\n')
    found = sources.read(str(path), DataConfig())
    assert found.tables["all"].ratings is None and len(found.tables["all"].users) == 5
    assert any("'1,5' in row 1 (line 2)" in note for note in found.notes)
    assert "'1,5' in row 1 (line 2)" in refusal(path, min_rating=2)


def test_a_bad_value_is_named_with_its_line(put):
    rows = "1,2,2020-01-01\n" * 100 + "1,2,soon\n"
    said = refusal(put("a.csv", "user_id,item_id,timestamp\n" + rows))
    assert "'soon' in row 101 (line 102)" in said
    said = refusal(put("a.csv", "user_id,item_id,timestamp\n,2,5\n\n" + "1,2,5\n" * 9 + "1,2,x\n"))
    assert "'x' in row 11 (line 13)" in said
    assert "line 3 has 3 fields" in refusal(put("a.csv", HEAD + "1,2\n1,2,3\n"))
    assert "line 4 has 1 field" in refusal(put("a.csv", HEAD + "1,2\n\n1\n"))
    text = '{"user":1,"item":2,"time":3}\n\n{"user":1,"item":2,"time":"x"}\n'
    assert "'x' in row 2 (line 3)" in refusal(put("a.jsonl", text))
    assert "line 2 is no json" in refusal(put("a.jsonl", '{"user":1,"item":2}\n{"user"\n'))


def test_texts_are_decompressed(put):
    text = (HEAD + "1,2\n2,b\n").encode()
    packed = {
        "gz": gzip.compress(text[:20]) + gzip.compress(text[20:]),  # two members
        "bz2": bz2.compress(text),
        "xz": lzma.compress(text),
        "zst": pa.Codec("zstd").compress(text, asbytes=True),
    }
    for ending, data in packed.items():
        assert read(put(f"a.csv.{ending}", data)) == ([1, 2], ["2", "b"], None), ending
        assert "damaged or cut short" in refusal(put(f"b.csv.{ending}", data[:-3])), ending
    assert sources.dataset_name("x/clicks.jsonl.gz") == "clicks"
    assert refusal(put("a.parquet.gz", packed["gz"]))


def test_json_lines_of_amazon_and_yelp(put):
    old = (
        '{"reviewerID":"A","asin":"007","overall":5.0,"unixReviewTime":1390000000}\n'
        '{"reviewerID":"B","asin":"7","overall":4.0,"unixReviewTime":1390000001}\n'
    )
    want = (["A", "B"], ["007", "7"], [1390000000, 1390000001])
    assert read(put("a.jsonl", old)) == want
    assert read(put("a.json.gz", gzip.compress(old.encode()))) == want
    new = '{"rating":5.0,"asin":"9","parent_asin":"B1","user_id":"A","timestamp":1588687728923}\n'
    assert read(put("a.jsonl", new)) == (["A"], ["B1"], [1588687728923])
    yelp = (
        '{"review_id":"z","user_id":"A","business_id":"b","stars":5.0,"date":"2018-07-07 22:09:11"}'
    )
    assert read(put("a.json", yelp)) == (["A"], ["b"], [1531001351])
    listed = (
        '[{"user":1,"item":18446744073709551610},{"user":1,"item":12e3},{"user":2,"item":null}]'
    )
    assert read(put("a.json", listed))[1] == ["18446744073709551610", "12e3"]
    assert "holds a list in 'item'" in refusal(put("a.jsonl", '{"user":1,"item":[1]}\n'))
    assert "no json" in refusal(put("a.jsonl", "{'user':1,'item':2}\n"))
    assert "no json" in refusal(put("a.jsonl", "[" * 100_000 + "\n"))


def test_half_a_letter_is_named(put):
    assert "a.jsonl holds text" in refusal(put("a.jsonl", '{"user":"\\ud800","item":1}\n'))


def test_a_folder_has_one_type_of_id(put, tmp_path):
    put("f/train.csv", HEAD + "1,a\n1,1\n")
    put("f/val.csv", HEAD + "1,01\n")
    put("f/test.csv", HEAD + "1,1\n")
    found = sources.read(str(tmp_path / "f"), DataConfig()).tables
    assert {split: table.items.tolist() for split, table in found.items()} == {
        "train": ["a", "1"],
        "valid": ["01"],
        "test": ["1"],
    }
    put("f/train.tsv", "x")
    assert "train.csv and train.tsv" in refusal(tmp_path / "f")


@pytest.mark.parametrize(
    "setting",
    [
        {"min_rating": 3},
        {"dedup": "last"},
        {"dedup_adjacent": True},
        {"user_core": 2},
        {"item_core": 2},
        {"recent": 3},
        {"split": "ratio"},
    ],
)
def test_a_folder_refuses_what_it_has_no_use_for(put, tmp_path, setting):
    for split in ("train", "valid", "test"):
        put(f"f/{split}.csv", HEAD + "1,2\n")
    (name,) = setting
    assert f"data.{name.replace('_', '-')}=" in refusal(tmp_path / "f", **setting)


NPY = {"train": [[0, 1], [0, 2], [1, 1]], "valid": [[0, 3]], "test": [[1, 3]]}


@pytest.mark.parametrize("valid", ["valid", "val", "validation"])
@pytest.mark.parametrize(
    "form",
    ["{}.csv", "{}_list.npy", "x.{}.inter", "data/{}-00000-of-00001.parquet", "{}/p.parquet"],
)
def test_folders_that_are_split(put, tmp_path, form, valid):
    for split, rows in NPY.items():
        path = tmp_path / form.format(valid if split == "valid" else split)
        path.parent.mkdir(exist_ok=True)
        users, items = zip(*rows, strict=True)
        if path.suffix == ".npy":
            np.save(path, np.array(rows))
        elif path.suffix == ".parquet":
            pq.write_table(pa.table({"user_id": users, "item_id": items}), path)
        else:
            mark = {".csv": ",", ".inter": "\t"}[path.suffix]
            head = mark.join(["user_id:token", "item_id:token"])
            path.write_text("\n".join([head, *(f"{u}{mark}{i}" for u, i in rows)]) + "\n")
    found = sources.read(str(tmp_path), DataConfig())
    got = {
        split: list(map(list, zip(table.users.tolist(), table.items.tolist(), strict=True)))
        for split, table in found.tables.items()
    }
    assert got == NPY and found.kind == "pairs"


def test_a_folder_without_validation_takes_it_from_training(put, tmp_path):
    put("train.txt", "0 1 2 3\n1 2\n")
    put("test.txt", "0 4\n1 3 4\n")
    found = sources.read(str(tmp_path), DataConfig())
    got = {s: (t.users.tolist(), t.items.tolist()) for s, t in found.tables.items()}
    assert got == {
        "train": ([0, 0, 1], [1, 2, 2]),
        "valid": ([0], [3]),
        "test": ([0, 1, 1], [4, 3, 4]),
    }
    assert any("valid: the last training item" in note for note in found.notes)


def test_folders_of_one_table(put, tmp_path):
    put("ml/ml.inter", "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t3.0\n")
    put("ml/ml.item", "item_id:token\n1\n")
    assert read(tmp_path / "ml") == ([1], [2], [3])
    for day, table in (
        (1, pa.table({"user_id": ["a", "b"], "item_id": [1, 2]})),
        (2, pa.table({"user_id": ["c"], "item_id": [3.0]})),
    ):
        path = put(f"spark/day={day}/part-0.snappy.parquet", b"")
        pq.write_table(table, path)
    put("spark/_SUCCESS", "")
    put("spark/day=1/.part-0.crc", "x")
    assert read(tmp_path / "spark") == (["a", "b", "c"], [1, 2, 3], None)
    assert read(tmp_path / "spark", timestamp="day")[2] == [1, 1, 2]
    put("none/readme.md", "x")
    said = refusal(tmp_path / "none")
    assert "lacks a table train" in said and "readme.md" in said


def test_histories_in_every_form(put, tmp_path):
    forms = {
        "csv": 'history,target\n1 2,3\n"[4, 5]",6\n,9\n7 8,\n',
        "jsonl": '{"history":[1,2],"target":3}\n{"history":[4,null,5],"target":6}\n'
        '{"history":[],"target":9}\n{"history":[7,8],"target":null}\n',
    }
    lists = [[1, 2], [4, None, 5], None, [7, 8]]
    table = {"history": lists, "target": [3, 6, 9, None]}
    for kind in (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.string())):
        values = lists
        if kind == pa.list_(pa.string()):
            values = [one and [None if v is None else str(v) for v in one] for one in lists]
        forms[f"{len(forms)}.parquet"] = pa.table(
            {"history": pa.array(values, kind), "target": table["target"]}
        )
    for name, data in forms.items():
        folder = tmp_path / name.replace(".", "")
        for split in ("train", "valid", "test"):
            if isinstance(data, str):
                put(f"{folder.name}/{split}.{name}", data)
            else:
                folder.mkdir(exist_ok=True)
                pq.write_table(data, folder / f"{split}.parquet")
        found = sources.read(str(folder), DataConfig())
        for rows in found.tables.values():
            assert rows.items.tolist() == [1, 2, 3, 4, 5, 6, 9], name
            assert rows.offsets.tolist() == [0, 3, 6, 7], name
        assert found.missing["train"]["by_column"] == {"target": 1}
        if name != "csv":
            assert any("left out 1 items of histories" in note for note in found.notes)
    for split in ("train", "valid", "test"):
        put(f"words/{split}.csv", "history,target\n\"['a', 'b c']\",x\n[],y\n")
        np.savez(put(f"npz/{split}.npz", b""), history=[[1, 2], [3, 4]], target=[5, 6])
        fixed = pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2))
        pq.write_table(
            pa.table({"history": fixed, "target": [5, 6]}), put(f"fix/{split}.parquet", b"")
        )
    rows = sources.read(str(tmp_path / "words"), DataConfig()).tables["train"]
    assert rows.items.tolist() == ["a", "b c", "x", "y"]
    for name in ("npz", "fix"):
        rows = sources.read(str(tmp_path / name), DataConfig()).tables["train"]
        assert rows.items.tolist() == [1, 2, 5, 3, 4, 6] and rows.offsets.tolist() == [0, 3, 6]


def test_numbers_that_are_none_are_left_out(tmp_path):
    table = {"user_id": [1, 2, 3], "item_id": ["a", "b", " "], "timestamp": [2.0, np.nan, 1.0]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    found = sources.read(str(tmp_path / "a.parquet"), DataConfig(max_missing=0.9))
    assert found.tables["all"].users.tolist() == [1]
    assert found.missing["all"]["by_column"] == {"timestamp": 1, "item_id": 1}


def test_lists_of_items_are_a_row_each(tmp_path):
    table = {"user_id": [1, 2], "item_id": [[1, 2], [3]], "timestamp": [[5, 6], [7]]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ([1, 1, 2], [1, 2, 3], [5, 6, 7])
    pq.write_table(pa.table(table | {"timestamp": [[5], [7]]}), tmp_path / "a.parquet")
    assert "several lengths" in refusal(tmp_path / "a.parquet")


def test_parts_of_several_types_keep_ids_apart(tmp_path):
    for place, items in enumerate(([1, 2], ["01", "1"], [2.0, 3.0])):
        pq.write_table(
            pa.table({"user_id": [1, 1], "item_id": items}), tmp_path / f"{place}.parquet"
        )
    assert read(tmp_path)[1] == ["1", "2", "01", "1", "2", "3"]
    long = [2**53 + 1, 2**53 + 3]
    pq.write_table(pa.table({"user_id": [1, 1], "item_id": long}), tmp_path / "1.parquet")
    assert read(tmp_path)[1] == [1, 2, *long, 2, 3]
    for odd in ([2.5, 3.0], [2.0**53, 1.0]):
        pq.write_table(pa.table({"user_id": [1, 1], "item_id": odd}), tmp_path / "2.parquet")
        assert "hold 'item_id' as double and int64" in refusal(tmp_path)


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as opened:
        opened.execute('create table "the clicks" (user_id, item_id, ts, "a ""b")')
        rows = [(1, "007", 1.5, 0), (2, "7", 2, 0), (3, None, 3, 0), (2**63 - 1, "x", 4, 0)]
        opened.executemany('insert into "the clicks" values (?, ?, ?, ?)', rows)
        opened.execute("create table other (a)")
    opened.close()
    return path


def test_a_table_of_a_database(database):
    source = f"sqlite:{database}"
    assert "other, the clicks" in refusal(source)
    assert "did you mean 'the clicks'" in refusal(source, table="the click")
    want = ([1, 2, 2**63 - 1], ["007", "7", "x"], [1.5, 2, 4])
    assert read(source, table="the clicks") == want
    query = 'select user_id as user, item_id as item from "the clicks" where ts > 1.5'
    assert read(source, query=query) == ([2, 2**63 - 1], ["7", "x"], None)
    assert sources.dataset_name(source) == "shop"
    assert "gives no rows" in refusal(source, query="select 1 as user, 2 as item where 0")


def test_a_database_is_only_read(database, tmp_path):
    before = database.read_bytes()
    for query in (
        'delete from "the clicks"',
        "drop table other",
        f"attach '{tmp_path / 'new.db'}' as n",
        "pragma journal_mode=wal",
        "select load_extension('x')",
        "select 1; delete from other",
        "",
    ):
        assert refusal(f"sqlite:{database}", query=query)
    assert database.read_bytes() == before and not (tmp_path / "new.db").exists()
    assert "SQLite" in refusal(f"sqlite:{tmp_path}")
    (tmp_path / "not.db").write_text("x" * 5000)
    assert "not a database" in refusal(f"sqlite:{tmp_path / 'not.db'}")
    assert "does not exist" in refusal(f"sqlite:{tmp_path / 'no.db'}")
    assert not (tmp_path / "no.db").exists()


def test_what_cannot_be_read_says_what_can(put, tmp_path):
    for name in ("a.pkl", "a.pickle", "a.joblib"):
        assert "to_parquet" in refusal(put(name, "x"))
    said = refusal(put("a.xlsx", "x"))
    assert all(ending in said for ending in (".parquet", ".jsonl", ".gz", "sqlite:"))
    np.save(tmp_path / "o.npy", np.array([[1, {}]], object), allow_pickle=True)
    assert "allow_pickle" in refusal(tmp_path / "o.npy")
    np.savez(tmp_path / "o.npz", user_id=np.array([{}], object), item_id=np.array([1]))
    assert "allow_pickle" in refusal(tmp_path / "o.npz")
    assert "File name too long" in refusal("x" * 300)
    os.mkfifo(tmp_path / "pipe.csv")
    assert "no file" in refusal(tmp_path / "pipe.csv")
    os.symlink(tmp_path / "loop.csv", tmp_path / "loop.csv")
    assert "leads nowhere" in refusal(tmp_path / "loop.csv")
    assert refusal("/dev/zero") and refusal("a\0b")
    assert "no rows" in refusal(put("e.csv", HEAD))


def test_home_is_expanded(put, tmp_path, monkeypatch):
    put("x.csv", HEAD + "1,2\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read("~/x.csv") == ([1], [2], None)
    assert "does not exist" in refusal("~/y.csv")


def test_sizes_are_checked_before_anything_is_made(put, tmp_path):
    big = np.zeros(2 * 10**7, np.int64)
    np.savez_compressed(tmp_path / "bomb.npz", user_id=big, item_id=[1])
    assert "declares arrays of 160,000" in refusal(tmp_path / "bomb.npz")
    header = b"\x93NUMPY\x01\x00\x76\x00" + (
        b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999, 2), }".ljust(117) + b"\n"
    )
    assert "99999999999 x 2" in refusal(put("a.npy", header + b"\0" * 64))
    assert "MiB" in refusal(put("long.csv", HEAD + "1," + "x" * (2**24 + 2**23)))
    assert "quote" in refusal(put("open.csv", HEAD + '1,"' + ("x" * 2**20 + "\n") * 18))


def test_npz_of_odd_shapes_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, said in (
        ({"user_id": [1, 2], "item_id": [1]}, "several lengths: user_id 2, item_id 1"),
        ({"user_id": 1, "item_id": [1]}, "'user_id' of shape []"),
        ({"user_id": np.zeros(1, "i4,i4"), "item_id": [1]}, "of type"),
        ({"user_id": [1j], "item_id": [1]}, "of type complex128"),
        ({"user_id": [[1]], "item_id": [1]}, "shape [1, 1]"),
    ):
        np.savez(path, **arrays)
        assert said in refusal(path)


def test_sparse_matrices_of_scipy(tmp_path):
    from scipy import sparse

    dense = np.array([[0, 1, 2], [3, 0, 0]])
    for form in ("csr", "csc", "coo"):
        sparse.save_npz(tmp_path / "m.npz", getattr(sparse, f"{form}_matrix")(dense))
        columns = sources.read(str(tmp_path / "m.npz"), DataConfig()).tables["all"]
        got = zip(columns.users, columns.items, columns.ratings, strict=True)
        assert sorted(got) == [(0, 1, 1), (0, 2, 2), (1, 0, 3)], form
    held = sparse.csr_matrix(dense)
    held.data[0] = 0  # stored, and no interaction
    sparse.save_npz(tmp_path / "m.npz", held)
    assert read(tmp_path / "m.npz")[:2] == ([0, 1], [2, 0])
    held.indptr[-1] = 99
    sparse.save_npz(tmp_path / "m.npz", held)
    assert "indptr" in refusal(tmp_path / "m.npz")


def test_every_column_of_a_guess_is_on_the_card(put):
    path = put("a.csv", "uid;sku;stars;ts\n1;a;5;3\n1;b;4;2\n")
    notes = sources.read(str(path), DataConfig()).notes
    assert notes == (
        "text: separated by ';', header in line 1",
        "columns: users 'uid', items 'sku', ratings 'stars' (not used), times 'ts'",
        "ids: users are whole numbers, items are text",
    )


def test_names_of_sources():
    assert sources.dataset_name("a/val.tar/x.feather") == "x"
    assert sources.dataset_name(str(Path("a") / "beauty")) == "beauty"


@pytest.mark.parametrize("text", [b"-0 a\0\n", b"FALSE,-0 a\0\n", b"a\0,-0 a\0\n"])
def test_ids_that_end_in_a_zero_are_no_utf_16(text, tmp_path):
    path = tmp_path / "h.txt"
    path.write_bytes(text)
    assert decode.encoding(path).name == "utf-8"
    path.write_bytes("user,item\n1,2\n".encode("utf-16-le"))
    assert decode.encoding(path).name == "utf-16-le"
