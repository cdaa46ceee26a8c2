"""Tables whose truth is known, in every format: read back equal, converted exactly, damaged."""

import bz2
import gzip
import json
import random
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrec_diff import cli
from jaxrec_diff.data import sources
from jaxrec_diff.data.config import DataConfig

NAMES = ("user_id", "item_id", "rating", "timestamp")

# what people's ids look like, and what has been mistaken for something else
ODD = ["007", "07", "7", "12e3", "12000", "0x1F", "31", "12:00", "true", "FALSE", "1.0", "1", "-0",
       "-7", "+7", "18446744073709551610", "18446744073709551611", "9007199254740993",
       "9223372036854775807", "9223372036854775808", "2020-01-01", "a", "a\0", "é", "e\u0301",
       "Ω", "日本", "🙂", "inf", "Infinity", "1_0", "_", "=1+1", "a b", "A", "None"]  # fmt: skip
TEXT = st.one_of(
    st.sampled_from(ODD),
    st.integers(-(2**70), 2**70).map(str),
    st.text(
        st.characters(exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=8
    ),
)
# ids that every format can hold as they are
PLAIN = TEXT.filter(
    lambda t: not set(t) & set("\"',;|\t:[]\x1f") and t.strip() == t and "  " not in t
)
WHOLE = st.integers(-(2**63), 2**63 - 1)


def rows(ids):
    row = st.tuples(ids, ids, st.integers(1, 5), st.integers(0, 2**60))
    return st.lists(row, min_size=1, max_size=12)


# "NA" and its like are no value in csv, unless they are quoted
NOTHING = {"NA", "N/A", "n/a", "NULL", "null", "NaN", "nan", "-nan", "-NaN", "<NA>", ""}


def text_of(table, mark, quoted=False):
    def field(value):
        return '"' + str(value).replace('"', '""') + '"' if quoted else str(value)

    lines = [NAMES, *table]
    return "".join(mark.join(field(v) for v in line) + "\n" for line in lines).encode()


def columns_of(table):
    return {
        name: list(values) for name, values in zip(NAMES, zip(*table, strict=True), strict=True)
    }


def jsonl(table):
    return "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in table).encode()


def parquet(table, path):
    pq.write_table(pa.table(columns_of(table)), path)


def dictionary(table, path):
    encoded = {name: pa.array(values) for name, values in columns_of(table).items()}
    for name in ("user_id", "item_id"):
        encoded[name] = encoded[name].dictionary_encode()
    pq.write_table(pa.table(encoded), path)


def feather(table, path):
    pf.write_feather(pa.table(columns_of(table)), path)


def arrow(table, path):
    made = pa.table(columns_of(table))
    with pa.OSFile(str(path), "wb") as out, pa.ipc.new_stream(out, made.schema) as stream:
        stream.write_table(made)


def npz(table, path):
    np.savez(path, **{name: np.array(values) for name, values in columns_of(table).items()})


def database(table, path):
    with sqlite3.connect(path) as opened:
        opened.execute(f"create table clicks ({', '.join(NAMES)})")
        opened.executemany("insert into clicks values (?, ?, ?, ?)", table)
    opened.close()


WRITERS = {
    "a.csv": lambda t, p: p.write_bytes(text_of(t, ",")),
    "quoted.csv": lambda t, p: p.write_bytes(text_of(t, ",", quoted=True)),
    "semi.csv": lambda t, p: p.write_bytes(text_of(t, ";", quoted=True)),
    "spaced.csv": lambda t, p: p.write_bytes(text_of(t, ", ")),
    "a.tsv": lambda t, p: p.write_bytes(text_of(t, "\t")),
    "bar.txt": lambda t, p: p.write_bytes(text_of(t, "|")),
    "two.dat": lambda t, p: p.write_bytes(text_of(t, "::")),
    "mark.csv": lambda t, p: p.write_bytes(b"\xef\xbb\xbf" + text_of(t, ",")),
    "wide.csv": lambda t, p: p.write_bytes(text_of(t, ",").decode().encode("utf-16")),
    "a.csv.gz": lambda t, p: p.write_bytes(gzip.compress(text_of(t, ","))),
    "a.tsv.bz2": lambda t, p: p.write_bytes(bz2.compress(text_of(t, "\t"))),
    "a.jsonl": lambda t, p: p.write_bytes(jsonl(t)),
    "a.json.gz": lambda t, p: p.write_bytes(gzip.compress(jsonl(t))),
    "a.parquet": parquet,
    "coded.parquet": dictionary,
    "a.feather": feather,
    "a.arrow": arrow,
    "a.npz": npz,
    "a.db": database,
}


def truth(ids):
    """The ids by the rule: whole numbers only if each is spelled as its number is."""
    texts = [str(one) for one in ids]
    try:
        whole = [int(text) for text in texts]
    except ValueError:
        return texts
    fits = all(-(2**63) <= n < 2**63 for n in whole)
    return whole if fits and [str(n) for n in whole] == texts else texts


def source_of(path):
    return f"sqlite:{path}" if path.suffix == ".db" else str(path)


def check(table, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](table, path)
        got = sources.read(source_of(path), DataConfig(min_rating=0)).tables["all"]
    users, items, ratings, times = zip(*table, strict=True)
    assert got.users.tolist() == truth(users), name
    assert got.items.tolist() == truth(items), name
    assert got.times.tolist() == list(times) and got.ratings.tolist() == list(ratings), name


def has_nothing(table):
    return any(value in NOTHING or value.startswith("#N") for row in table for value in row[:2])


# numpy cuts zeros at the end of text; the unquoted formats have words for nothing
_UNLIKE = {"a.npz": lambda t: any(v.endswith("\0") for row in t for v in row[:2])}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(table=rows(PLAIN))
def test_text_ids_come_back_as_they_are(name, table):
    if not has_nothing(table) and not _UNLIKE.get(name, lambda _: False)(table):
        check(table, name)


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=6, suppress_health_check=list(HealthCheck))
@given(table=rows(WHOLE))
def test_whole_numbers_come_back_as_they_are(name, table):
    check(table, name)


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(table=rows(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)))
def test_quoted_csv_holds_any_text(table):
    # a line end of its own is part of the text; \r is what arrow's and Python's writers quote too
    check(table, "quoted.csv")


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(table=rows(PLAIN))
def test_many_tables_come_back_as_they_are(name, table):
    if not has_nothing(table) and not _UNLIKE.get(name, lambda _: False)(table):
        check(table, name)


@settings(max_examples=10, suppress_health_check=list(HealthCheck))
@given(table=rows(st.one_of(TEXT.filter(str.strip), st.sampled_from(["NA", "null", " x", 'q"r']))))
def test_conversions_are_exact(table):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parquet(table, folder / "a.parquet")
        for begin, end in (("a.parquet", "b.csv"), ("b.csv", "c.parquet"), ("c.parquet", "d.csv")):
            command = [f"--data={folder / begin}", f"--output={folder / end}"]
            assert cli.main(["convert", *command]) == 0
        assert (folder / "b.csv").read_bytes() == (folder / "d.csv").read_bytes()
        first, last = (
            sources.read(str(folder / f"{one}.parquet"), DataConfig()).tables["all"] for one in "ac"
        )
        for one, other in zip(first, last, strict=True):
            assert one is other is None or one.tolist() == other.tolist()
        users = [row[0] for row in table]
        assert last.users.tolist() == truth(users)


@pytest.mark.parametrize("form", ["pairs", "histories"])
def test_folders_are_converted_exactly(tmp_path, form, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        text = "user_id,item_id,timestamp\nu,007,3\nu,7,2.5\n"
        if form == "histories":
            text = f"history,target\n007 7,x\n,{split}\n"
        (folder / f"{split}.csv").write_text(text)
    command = ["convert", f"--data={folder}", f"--output={tmp_path / 'out'}"]
    assert cli.main(command) == 0
    one, other = (sources.read(str(tmp_path / name), DataConfig()) for name in ("in", "out"))
    for split, rows in one.tables.items():
        for mine, theirs in zip(rows, other.tables[split], strict=True):
            assert mine is theirs is None or mine.tolist() == theirs.tolist()
    assert cli.main(command) == 2 and cli.main([*command[:2], "--output=a.csv"]) == 2
    assert "name a folder" in capsys.readouterr().err


def damaged(data, draw):
    """Bytes that are cut, flipped, doubled or overwritten somewhere."""
    data = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(data))
        way = draw.randrange(5)
        if way == 0:
            del data[at + 1 :]
        elif way == 1:
            data[at] ^= 1 << draw.randrange(8)
        elif way == 2:
            data[at:at] = data[at : at + draw.randint(1, 40)]
        elif way == 3:
            del data[at : at + draw.randint(1, 40)]
        else:
            data[at : at + 4] = draw.randbytes(4)
        if not data:
            break
    return bytes(data)


def damage(seed, count):
    """How many damaged files were read and how many were refused in one sentence."""
    draw = random.Random(seed)
    table = [(f"u{n % 9}", f"item-{n % 23}é", n % 5 + 1, 1_600_000_000 + n) for n in range(60)]
    whole = [(n % 9, n % 23, n % 5 + 1, 1_600_000_000 + n) for n in range(60)]
    counted = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        for name, write in WRITERS.items():
            for truth_, kind in ((table, "t"), (whole, "w")):
                path = Path(folder) / f"{kind}{name}"
                write(truth_, path)
                data = path.read_bytes()
                for _ in range(count):
                    path.write_bytes(damaged(data, draw))
                    try:
                        sources.read(source_of(path), DataConfig())
                        counted["read"] += 1
                    except ValueError as error:
                        said = str(error)
                        assert "\n" not in said and str(path) in said, said
                        counted["refused"] += 1
    return counted


def test_damage_gives_a_sentence():
    counted = damage(0, 12)
    assert counted["refused"] > counted["read"] / 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
def test_much_damage_gives_a_sentence(seed):
    assert damage(seed, 60)["refused"]
