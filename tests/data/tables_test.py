"""Tables whose truth is known, in every format: read back equal, converted exactly."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxrec_diff import cli
from jaxrec_diff.data import sources
from jaxrec_diff.data.config import DataConfig
from tests.data.written import (
    PLAIN,
    TEXT,
    UNLIKE,
    WHOLE,
    WRITERS,
    has_nothing,
    parquet,
    rows,
    source_of,
    truth,
)


def check(table, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        WRITERS[name](table, path)
        got = sources.read(source_of(path), DataConfig(min_rating=0)).tables["all"]
    users, items, ratings, times = zip(*table, strict=True)
    assert got.users.tolist() == truth(users), name
    assert got.items.tolist() == truth(items), name
    assert got.times.tolist() == list(times) and got.ratings.tolist() == list(ratings), name


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(table=rows(PLAIN))
def test_text_ids_come_back_as_they_are(name, table):
    if not has_nothing(table) and not UNLIKE.get(name, lambda _: False)(table):
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
    if not has_nothing(table) and not UNLIKE.get(name, lambda _: False)(table):
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
    for split, table in one.tables.items():
        for mine, theirs in zip(table, other.tables[split], strict=True):
            assert mine is theirs is None or mine.tolist() == theirs.tolist()
    assert cli.main(command) == 2 and cli.main([*command[:2], "--output=a.csv"]) == 2
    assert "name a folder" in capsys.readouterr().err
