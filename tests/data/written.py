"""Tables of interactions whose truth is known, written in every format and in many ways."""

import bz2
import gzip
import json
import lzma
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
from hypothesis import strategies as st

NAMES = ("user_id", "item_id", "rating", "timestamp")

# what people's ids look like, and what has been mistaken for something else
ODD = ["007", "07", "7", "12e3", "12000", "1e3", "0x1F", "31", "12:00", "true", "FALSE", "1.0", "1",
       "-0", "-7", "+7", "+5", "18446744073709551610", "18446744073709551611", "9007199254740993",
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
NOTHING |= {"-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"}


def has_nothing(table) -> bool:
    return any(
        str(value) in NOTHING or str(value).startswith("#N") for row in table for value in row[:2]
    )


def truth(ids):
    """The ids by the rule: whole numbers only if each is spelled as its number is."""
    texts = [str(one) for one in ids]
    try:
        whole = [int(text) for text in texts]
    except ValueError:
        return texts
    fits = all(-(2**63) <= n < 2**63 for n in whole)
    return whole if fits and [str(n) for n in whole] == texts else texts


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
    "a.inter": lambda t, p: p.write_bytes(text_of(t, "\t")),
    "bar.txt": lambda t, p: p.write_bytes(text_of(t, "|")),
    "two.dat": lambda t, p: p.write_bytes(text_of(t, "::")),
    "mark.csv": lambda t, p: p.write_bytes(b"\xef\xbb\xbf" + text_of(t, ",")),
    "wide.csv": lambda t, p: p.write_bytes(text_of(t, ",").decode().encode("utf-16")),
    "a.csv.gz": lambda t, p: p.write_bytes(gzip.compress(text_of(t, ","))),
    "a.tsv.bz2": lambda t, p: p.write_bytes(bz2.compress(text_of(t, "\t"))),
    "a.csv.xz": lambda t, p: p.write_bytes(lzma.compress(text_of(t, ","))),
    "a.jsonl": lambda t, p: p.write_bytes(jsonl(t)),
    "a.json.gz": lambda t, p: p.write_bytes(gzip.compress(jsonl(t))),
    "a.parquet": parquet,
    "coded.parquet": dictionary,
    "a.feather": feather,
    "a.arrow": arrow,
    "a.npz": npz,
    "a.db": database,
}
# numpy cuts zeros at the end of text; the unquoted formats have words for nothing
UNLIKE = {"a.npz": lambda t: any(str(v).endswith("\0") for row in t for v in row[:2])}
# formats whose every byte of data is under a check sum
CHECKED = ("a.csv.gz", "a.tsv.bz2", "a.csv.xz", "a.json.gz", "a.npz")


def source_of(path: Path) -> str:
    return f"sqlite:{path}" if path.suffix == ".db" else str(path)


Draw = random.Random
_HEADS = {
    "user_id": ("user_id", "User ID", "USER_ID", "user-id", "userId", "user", "reviewerID"),
    "item_id": ("item_id", "Item Id", "ITEM_ID", "item-id", "itemId", "item", "parent_asin"),
    "rating": ("rating", "Rating", "overall", "Star Rating", "stars"),
    "timestamp": ("timestamp", "Timestamp", "time", "unixReviewTime", "event_time"),
}


def some_text(table, folder: Path, draw: Draw) -> Path:
    """A text of one of the many forms that hold the same."""
    odd = has_nothing(table)  # its words must be quoted
    end = draw.choice((".csv", ".txt") if odd else (".csv", ".tsv", ".txt", ".dat", ".inter"))
    mark = {".tsv": "\t", ".dat": "::", ".inter": "\t"}.get(end) or draw.choice(
        ",;" if odd else ",;|\t"
    )
    quoted = mark in ",;" and (odd or draw.random() < 0.5)
    order = draw.sample(range(4), 4) if draw.random() < 0.5 else list(range(4))
    heads = [draw.choice(_HEADS[name]) for name in NAMES]
    if end == ".inter" and draw.random() < 0.5:
        heads = [
            f"{name}:{kind}"
            for name, kind in zip(NAMES, ("token", "token", "float", "float"), strict=True)
        ]
    lines = [[line[i] for i in order] for line in (heads, *table)]
    if draw.random() < 0.3:
        at = draw.randrange(5)
        for number, line in enumerate(lines):
            line.insert(at, "note" if number == 0 else draw.choice(("x", "", "0", "a b")))
    some = draw.choice((lambda: quoted, lambda: quoted and draw.random() < 0.7))

    def field(value):
        value = str(value)
        must = value in NOTHING or value.startswith("#N")
        return f'"{value}"' if quoted and (must or some()) else value

    finish = draw.choice(("\n", "\n", "\r\n", "\r"))
    text = finish.join(mark.join(map(field, line)) for line in lines)
    text += draw.choice(("", finish, finish, finish * 2))
    coding = draw.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))
    return packed(text.encode(coding), folder / f"some{end}", draw)


def packed(data: bytes, path: Path, draw: Draw) -> Path:
    """The bytes in a file, compressed by any of the ways or none."""
    kind = draw.choice(("", "", "", ".gz", ".bz2", ".xz", ".zst"))
    path = path.with_name(path.name + kind)
    if kind == ".zst":
        with pa.output_stream(str(path), compression="zstd") as out:
            out.write(data)
        return path
    ways = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if kind == ".gz" and draw.random() < 0.3:  # two members are one file
        at = draw.randrange(len(data) + 1)
        path.write_bytes(gzip.compress(data[:at]) + gzip.compress(data[at:]))
    else:
        path.write_bytes(ways[kind](data))
    return path


def some_json(table, folder: Path, draw: Draw) -> Path:
    whole = all(isinstance(v, int) for row in table for v in row)
    heads = ("user_id", "item_id", "rating", "timestamp")
    objects = []
    for row in table:
        items = list(
            zip(
                heads,
                row if whole and draw.random() < 0.7 else (str(row[0]), str(row[1]), *row[2:]),
                strict=True,
            )
        )
        draw.shuffle(items)
        objects.append(
            dict(items)
            | ({"note": draw.choice((None, "x", [1], {"a": 1}))} if draw.random() < 0.3 else {})
        )
    ascii_ = draw.random() < 0.5
    if draw.random() < 0.3:
        text = json.dumps(objects, ensure_ascii=ascii_, indent=draw.choice((None, 1)))
        return packed(text.encode(), folder / "some.json", draw)
    finish = draw.choice(("\n", "\r\n"))
    text = finish.join(json.dumps(one, ensure_ascii=ascii_) for one in objects)
    end = draw.choice((".jsonl", ".json", ".ndjson"))
    return packed((text + draw.choice(("", finish))).encode(), folder / f"some{end}", draw)


def some_arrow(table, folder: Path, draw: Draw) -> Path:
    """Parquet, Feather or arrow, of any type, compression and cut into pieces."""
    columns = {}
    for name, values in columns_of(table).items():
        if isinstance(values[0], str):
            kind = draw.choice((pa.string(), pa.large_string(), pa.binary()))
            values = [v.encode() for v in values] if kind == pa.binary() else values
        else:
            kinds = [pa.int64()]
            kinds += [pa.int32()] * all(abs(v) < 2**31 for v in values)
            kinds += [pa.uint64()] * all(v >= 0 for v in values)
            kind = draw.choice(kinds)
        array = pa.array(values, kind)
        if name in ("user_id", "item_id") and draw.random() < 0.3:
            array = array.dictionary_encode()
        columns[name] = array
    names = draw.sample(NAMES, 4)
    made = pa.table({name: columns[name] for name in names})
    piece = draw.randint(1, len(table))
    way = draw.choice(("parquet", "parquet", "feather", "file", "stream", "parts"))
    if way == "feather":
        path = folder / "some.feather"
        pf.write_feather(
            made, path, compression=draw.choice(("lz4", "zstd", "uncompressed")), chunksize=piece
        )
    elif way in ("file", "stream"):
        path = folder / draw.choice(("some.arrow", "some.ipc"))
        opened = pa.ipc.new_file if way == "file" else pa.ipc.new_stream
        made = made.unify_dictionaries()
        with pa.OSFile(str(path), "wb") as out, opened(out, made.schema) as stream:
            stream.write_table(made, max_chunksize=piece)
    elif way == "parts":
        path = folder / "parts"
        path.mkdir()
        for number, begin in enumerate(range(0, len(table), piece)):
            pq.write_table(made.slice(begin, piece), path / f"part-{number:05d}.parquet")
    else:
        path = folder / draw.choice(("some.parquet", "some.pq"))
        pq.write_table(
            made, path, row_group_size=piece, use_dictionary=draw.random() < 0.5,
            compression=draw.choice(("none", "snappy", "gzip", "zstd", "lz4")),
            data_page_version=draw.choice(("1.0", "2.0")), version=draw.choice(("1.0", "2.6")),
            write_page_checksum=draw.random() < 0.5,
        )  # fmt: skip
    return path


def some_numpy(table, folder: Path, draw: Draw) -> Path:
    arrays = {}
    for name, values in columns_of(table).items():
        if isinstance(values[0], str):
            bytes_ = draw.random() < 0.3
            array = np.array([v.encode() for v in values] if bytes_ else values)
        else:
            array = np.array(values, np.int64)
            if draw.random() < 0.3:
                array = array.astype(">i8")
        arrays[name] = array
    names = draw.sample(NAMES, 4)
    path = folder / "some.npz"
    save = draw.choice((np.savez, np.savez_compressed))
    save(path, **{name: arrays[name] for name in names})
    return path


def some_database(table, folder: Path, draw: Draw) -> Path:
    path = folder / "some.db"
    kind = draw.choice(("", " text", " blob"))
    whole = isinstance(table[0][0], int)
    if whole:
        kind = draw.choice(("", " integer"))
    with sqlite3.connect(path) as opened:
        opened.execute(
            f"create table clicks (user_id{kind}, item_id{kind}, rating integer, timestamp integer)"
        )
        opened.executemany("insert into clicks values (?, ?, ?, ?)", table)
    opened.close()
    return path


# Ways to write the same table; each draws a form of its own.
SOME: dict[str, Callable] = {
    "text": some_text,
    "json": some_json,
    "arrow": some_arrow,
    "numpy": some_numpy,
    "database": some_database,
}


def no_form(table, way: str) -> bool:
    """Whether a way cannot hold the table: numpy cuts zeros at the end of text."""
    return way == "numpy" and any(str(v).endswith("\0") for row in table for v in row[:2])
