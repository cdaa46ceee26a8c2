"""Malformed and odd files through the readers, in a process that is watched from outside.

A family of inputs is a function `(count, seed, folder, told)` that tells of every input before it
is read and of how it went.
"""

import random
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from jaxrec_diff.data import load, sources
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.inference import files
from tests.data import written
from tests.faults import harness
from tests.faults.damage import damaged

_MEMORY = 8 * 2**30  # bytes of address space a reader may take


class Told:
    """Sends what happens to the process that watches."""

    def __init__(self, pipe: Any):
        self._send = pipe.send

    def reads(self, what: str, path: Path, read: Callable[[], Any], truth: Any = None) -> None:
        """Reads one input: refused in a sentence that names it, or read, and as the truth is."""
        self._send(("begins", what))
        try:
            found = read()
        except ValueError as error:
            said = str(error)
            one = said.strip() and "\n" not in said and len(said) < 2000
            named = str(path) in said or path.name in said
            outcome = "held" if one and named else "tracebacks"
            self._send((outcome, what, said))
            return
        except BaseException as error:  # whatever it is, a user would see a traceback
            self._send(("tracebacks", what, f"{type(error).__name__}: {error}"))
            return
        if truth is not None and found != truth:
            self._send(("silent", what, f"read {found!r}\nnot {truth!r}"[:2000]))
        else:
            self._send(("held", what, ""))

    def exact(self, what: str, read: Callable[[], Any], truth: Any) -> None:
        """Reads one input that has to be read as it is."""
        self._send(("begins", what))
        try:
            found = read()
        except BaseException as error:
            self._send(("lost", what, f"{type(error).__name__}: {error}"))
            return
        if found == truth:
            self._send(("held", what, ""))
        else:
            self._send(("silent", what, f"read {found!r}\nnot {truth!r}"[:2000]))


def watched(families: dict[str, int], counted: harness.Tally) -> int:
    """Runs so many of some families in another process; a crash or a hang of it counts.

    Returns:
      How many inputs were read and not refused.
    """
    read = 0
    context = harness.context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(families, harness.SEED, theirs))
    process.start()
    theirs.close()
    what = "its start"
    while True:
        if not ours.poll(harness.HANGS if what != "its start" else 120.0):
            process.kill()
            counted.add("hangs", what)
            break
        try:
            word, what, *said = ours.recv()
        except EOFError:
            process.join()
            counted.add("tracebacks", what, f"the process ended with {process.exitcode}")
            break
        if word == "ended":
            break
        if word != "begins":
            counted.add(word, what, *said)
            read += word == "held" and not said[0]
    process.join()
    return read


def _work(families: dict[str, int], seed_: int, pipe: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for family, count in families.items():
        with tempfile.TemporaryDirectory() as folder:
            FAMILIES[family](count, f"{seed_} {family}", Path(folder), Told(pipe))
    pipe.send(("ended", ""))


def table_of(path: Path, config: DataConfig | None = None) -> Any:
    """A table as lists."""
    read = sources.read(written.source_of(path), config or DataConfig(min_rating=0))
    if "all" not in read.tables:
        return read.kind
    columns = read.tables["all"]
    return tuple(None if one is None else one.tolist() for one in columns[:4])


def truth_of(table: list) -> Any:
    users, items, ratings, times = zip(*table, strict=True)
    return written.truth(users), written.truth(items), list(ratings), list(times)


def known_tables(draw: random.Random) -> list:
    """Text ids, whole numbers, and few rows."""
    size = draw.choice((1, 3, 60, 60))
    if draw.random() < 0.5:
        return [(n % 9, n % 23, n % 5 + 1, 1_600_000_000 + n) for n in range(size)]
    return [(f"u{n % 9}", f"item-{n % 23}é", n % 5 + 1, 1_600_000_000 + n) for n in range(size)]


def _odd_settings(draw: random.Random) -> DataConfig:
    """Settings that a user may have beside the file."""
    few: dict[str, Any] = draw.choice((
        {}, {}, {}, {"columns": "user,item"}, {"columns": "user,item,rating,time"},
        {"columns": "user,items"}, {"columns": "items"}, {"user": "item_id"}, {"item": "rating"},
        {"timestamp": "user_id"}, {"min_rating": 3.0}, {"max_missing": 1.0}, {"rating": "nothing"},
    ))  # fmt: skip
    return DataConfig(**few)


def damaged_tables(count: int, seed_: str, folder: Path, told: Told) -> None:
    """Bytes of every format, changed somewhere; what a check sum guards is never read otherwise."""
    draw = random.Random(seed_)
    names = list(written.WRITERS)
    for number in range(count):
        name, table = names[number % len(names)], known_tables(draw)
        path = folder / name
        written.WRITERS[name](table, path)
        path.write_bytes(damaged(path.read_bytes(), draw))
        checked = name in written.CHECKED
        config = DataConfig(min_rating=0) if checked else _odd_settings(draw)
        truth = truth_of(table) if checked else None
        what = f"input {number} of {seed_!r}, {name}, {config}"
        told.reads(what, path, lambda p=path, c=config: table_of(p, c), truth)
        path.unlink()


def damaged_loads(count: int, seed_: str, folder: Path, told: Told) -> None:
    """The same through filters and splits, with folders of three tables among them."""
    draw = random.Random(seed_)
    names = [name for name in written.WRITERS if name != "a.db"]
    for number in range(count):
        name, table = names[number % len(names)], known_tables(draw)
        inside = draw.random() < 0.4
        where = folder / f"set{number}"
        if inside:
            where.mkdir()
            end = name[name.index(".") :]
            paths = [where / f"{split}{end}" for split in ("train", "valid", "test")]
        else:
            paths = [folder / name]
        for path in paths:
            written.WRITERS[name](table, path)
        path = draw.choice(paths)
        path.write_bytes(damaged(path.read_bytes(), draw, most=1))
        config = DataConfig(split=draw.choice(("leave_one_out", "ratio", "global_time", "users")))
        if inside:
            config = DataConfig()
        source = where if inside else path
        what = f"input {number} of {seed_!r}, {name}, {config}"
        told.reads(what, source, lambda s=source, c=config: load.load(str(s), c) and None)
        for path in paths:
            path.unlink()


# fmt: off
_WORDS = [
    "user_id", "item_id", "timestamp", "rating", "history", "target", "1", "2", "007", "1e3", "x",
    ",", ",", "\t", ";", "|", "::", " ", "\n", "\n", "\r\n", "\r", '"', '""', "\0", "é", "\ufeff",
    "2024-01-01", "NA", "null", "{", "}", "[", "]", ":", '"user_id"', '"item_id"', "-1", "1.5",
    "\x1f", "\u2028", "𝕏", "99999999999999999999",
]
# fmt: on
_ENDS = (".csv", ".tsv", ".txt", ".dat", ".inter", ".data", ".jsonl", ".json", ".ndjson")
_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.sampled_from(["user_id", "item_id", "timestamp", "history"]), st.text(max_size=4)
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


_SEEDED = st.integers(0, 2**32).map(random.Random)


def _generated(count: int, seed_: str, strategy: Any, each: Callable[[Any], None]) -> None:
    """Gives hypothesis' examples of a strategy to a function that raises nothing."""

    @seed(seed_)
    @settings(
        max_examples=count, database=None, deadline=None, derandomize=False,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def test(example):
        each(example)

    test()


def generated_texts(count: int, seed_: str, folder: Path, told: Told) -> None:
    """Texts of words, marks and line ends in any order; raw bytes; json of any shape."""
    import json

    words = st.lists(st.sampled_from(_WORDS), max_size=40).map(lambda w: "".join(w).encode())
    head = words.map(lambda rest: b"user_id,item_id,timestamp\n" + rest)
    values = st.lists(_JSON, max_size=5).map(
        lambda v: "\n".join(json.dumps(one) for one in v).encode()
    )
    any_ = st.one_of(
        words,
        head,
        st.binary(max_size=60),
        values,
        st.text().map(lambda t: t.encode("utf-8", "replace")),
    )
    readers = st.sampled_from(["table", "table", "histories", "users"])

    def each(example):
        data, end, reader = example
        path = folder / f"any{end}"
        path.write_bytes(data)
        read = {
            "table": lambda: table_of(path, DataConfig()) and None,
            "histories": lambda: histories_of(path) and None,
            "users": lambda: files.read_users(path, DataConfig()) and None,
        }[reader]
        told.reads(f"{reader} of {end}: {data!r}", path, read)

    _generated(count, seed_, st.tuples(any_, st.sampled_from(_ENDS), readers), each)


def histories_of(path: Path) -> Any:
    """(names, lists of ids) of a file of histories."""
    names: list = []
    lists: list = []
    for raw in files.read_histories(path, DataConfig()):
        flat = [str(one) if one is not None else None for one in raw.ids.to_pylist()]
        bounds = raw.offsets.tolist()
        names += [str(one) for one in raw.names.to_pylist()]
        lists += [flat[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    return names, lists


def write_histories(
    names: list, lists: list, folder: Path, draw: random.Random
) -> tuple[Path, bool]:
    """A file of histories in any form, and whether it has the names."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    way = draw.choice(("list", "dict", "parquet", "csv", "tsv", "txt"))
    named = draw.random() < 0.5 and way != "txt" or way == "dict"
    if way in ("list", "dict"):
        lines = [
            json.dumps(
                {"user": name, "history": one} if way == "dict" else one,
                ensure_ascii=draw.random() < 0.5,
            )
            for name, one in zip(names, lists, strict=True)
        ]
        return written.packed("\n".join(lines).encode(), folder / "h.jsonl", draw), way == "dict"
    if way == "parquet":
        kind = draw.choice((pa.string(), pa.large_string()))
        wide = draw.choice((pa.list_, pa.large_list))
        columns = {"history": pa.array(lists, wide(kind))}
        if named:
            columns["user"] = pa.array(names)
        path = folder / "h.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=draw.randint(1, 5))
        return path, named
    if way == "txt":
        text = "\n".join(draw.choice((" ", "\t", ",")).join(one) for one in lists)
        return written.packed(text.encode(), folder / "h.txt", draw), False
    mark = "," if way == "csv" else "\t"
    head = mark.join(["user", "history"] if named else ["history", "other"])
    rows = [
        mark.join([name, " ".join(one)] if named else [" ".join(one), "x"])
        for name, one in zip(names, lists, strict=True)
    ]
    return written.packed("\n".join([head, *rows]).encode(), folder / f"h.{way}", draw), named


def _plain_histories() -> Any:
    item = written.PLAIN.filter(lambda t: not set(t) & set(" \xa0()") and t not in written.NOTHING)
    own = st.lists(st.tuples(item, st.lists(item, min_size=1, max_size=6)), min_size=1, max_size=6)
    return st.tuples(own, _SEEDED)


def known_histories(count: int, seed_: str, folder: Path, told: Told) -> None:
    """Histories in every form come back as they are."""

    def each(example):
        own, draw = example
        names, lists = [one[0] for one in own], [one[1] for one in own]
        path, named = write_histories(names, lists, folder, draw)
        truth = (names if named else [str(n) for n in range(1, len(own) + 1)], lists)
        told.exact(f"{path.name} of {own!r}", lambda: histories_of(path), truth)
        path.unlink()

    _generated(count, seed_, _plain_histories(), each)


def damaged_histories(count: int, seed_: str, folder: Path, told: Told) -> None:
    draw = random.Random(seed_)
    for number in range(count):
        size = draw.randint(1, 6)
        names = [f"u{n}" for n in range(size)]
        lists = [[f"i{draw.randrange(24):02d}" for _ in range(draw.randint(1, 5))] for _ in names]
        path, _ = write_histories(names, lists, folder, draw)
        path.write_bytes(damaged(path.read_bytes(), draw))
        told.reads(
            f"input {number} of {seed_!r}, {path.name}",
            path,
            lambda p=path: histories_of(p) and None,
        )
        path.unlink()


def known_tables_again(count: int, seed_: str, folder: Path, told: Told) -> None:
    """A table written in two forms of every way is the same table."""
    import shutil

    tables = st.one_of(written.rows(written.PLAIN), written.rows(written.WHOLE))
    each_way = st.sampled_from(list(written.SOME))

    def each(example):
        table, way, draw = example
        if written.no_form(table, way):
            way = "json"
        here = folder / "one"
        here.mkdir()
        path = written.SOME[way](table, here, draw)
        told.exact(f"{path.name} of {table!r}", lambda: table_of(path), truth_of(table))
        shutil.rmtree(here)

    _generated(count, seed_, st.tuples(tables, each_way, _SEEDED), each)


def shuffled_rows(count: int, seed_: str, folder: Path, told: Told) -> None:
    """The order of rows changes nothing where every time is another."""
    draw = random.Random(seed_)

    def split_of(path: Path) -> Any:
        data = load.load(str(path), DataConfig())
        out = []
        for part in (data.train, data.valid, data.test):
            out.append(
                [part.items[a:b].tolist() for a, b in zip(part.start, part.stop, strict=True)]
            )
        return data.card["hash"], list(map(str, data.item_ids)), list(map(str, data.user_ids)), out

    for number in range(count):
        users = draw.randint(3, 8)
        table = [
            (draw.choice(("u", "0")) + str(u), f"i{draw.randrange(9)}", 1, draw.randrange(10**6))
            for u in range(users)
            for _ in range(draw.randint(3, 7))
        ]
        table = list({row[3]: row for row in table}.values())
        first, second = folder / "a.csv", folder / "b.tsv"
        first.write_bytes(written.text_of(table, ","))
        draw.shuffle(table)
        second.write_bytes(written.text_of(table, "\t"))
        try:
            truth = split_of(first)
        except ValueError:
            continue
        told.exact(f"rows {number} of {seed_!r}", lambda path=second: split_of(path), truth)


def arrays_of_python(count: int, seed_: str, folder: Path, told: Told) -> None:
    """npy files of any shape and type."""
    draw = np.random.default_rng(list(seed_.encode()))
    kinds = (
        "<i8",
        "<i4",
        ">i8",
        "<u8",
        "<f8",
        "<f4",
        "|b1",
        "<U3",
        "|S3",
        "<c16",
        "<M8[s]",
        "<m8[s]",
        "|u1",
    )
    for number in range(count):
        shape = tuple(draw.integers(0, 5, draw.integers(0, 4)).tolist())
        kind = kinds[draw.integers(len(kinds))]
        array = draw.integers(0, 99, shape).astype(kind)
        path = folder / ("a.npy" if draw.random() < 0.5 else "a.npz")
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            np.savez(path, user_id=array, item_id=draw.integers(0, 99, shape).astype(kind))
        what = f"{path.name} {number} of {kind} {shape}"
        told.reads(what, path, lambda p=path: table_of(p, DataConfig()) and None)


FAMILIES: dict[str, Callable[[int, str, Path, Told], None]] = {
    "damaged tables": damaged_tables,
    "damaged loads": damaged_loads,
    "damaged histories": damaged_histories,
    "generated texts": generated_texts,
    "numpy shapes": arrays_of_python,
    "known tables": known_tables_again,
    "known histories": known_histories,
    "shuffled rows": shuffled_rows,
}
