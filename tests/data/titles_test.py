"""Titles of items from the files that people have, and what of them reaches a run."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import cli
from jaxrec_diff.data import load, titles
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.experiments import restore
from jaxrec_diff.inference import recommend

_DATES = "|01-Jan-1995||http://us.imdb.com/M|0|1\n"
FILES = {
    "u.item": ("1|Toy Story (1995)" + _DATES + "2|Misérables, Les" + _DATES).encode("latin-1"),
    "movies.dat": b"1::Toy Story (1995)::Animation|Comedy\n2::Mis\xe9rables, Les::Drama\n",
    "movies.csv": "movieId,title,genres\n1,Toy Story (1995),A|B\n"
    '2,"Misérables, Les",C|D\n'.encode(),
    "ml.item": "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
    "1\tToy Story (1995)\tA B\n2\tMisérables, Les\tC\n".encode(),
    "meta.jsonl": b'{"parent_asin": "1", "price": 3, "title": "Toy  Story (1995)"}\n'
    + '{"parent_asin": "2", "title": "Misérables, Les"}\n'.encode(),
    "plain.tsv": "2\tMisérables, Les\n1\tToy Story (1995)\n1\tlater\n".encode(),
}


@pytest.mark.parametrize("name", [*FILES, "titles.parquet"])
def test_every_table_of_titles_is_read_alike(tmp_path, name):
    path = tmp_path / name
    if name in FILES:
        path.write_bytes(FILES[name])
    else:
        table = {"title": ["Misérables, Les", "Toy Story (1995)", None], "id": [2, 1, 3]}
        pq.write_table(pa.table(table), path)
    ids, texts = titles.read(path, DataConfig())
    assert [str(each) for each in ids] == ["1", "2"]
    assert texts.tolist() == ["Toy Story (1995)", "Misérables, Les"]


@pytest.fixture
def shop(tmp_path):
    """Interactions with the items 1 to 6, of which 1, 2 and 5 have titles."""
    rng = np.random.default_rng(0)
    rows = [f"{user},{item},{n}" for user in range(40) for n, item in enumerate(rng.permutation(6))]
    (tmp_path / "shop.csv").write_text(
        "user_id,item_id,timestamp\n"
        + "".join(f"{u},{int(i) + 1},{n}\n" for u, i, n in (r.split(",") for r in rows))
    )
    (tmp_path / "titles.csv").write_text('id,title\n1,One\n5,"Five, <b>"\n2,Two\n99,Nothing\n')
    return tmp_path


def test_titles_are_of_the_items_and_counted(shop):
    source, file = str(shop / "shop.csv"), str(shop / "titles.csv")
    found = load.load(source, DataConfig(titles=file))
    assert found.titles.tolist() == ["One", "Two", "", "", "Five, <b>", ""]
    assert [found.label(item) for item in (1, 3)] == ["One", "3"]
    assert found.card["titles"] == {"file": file, "items_without": 3}
    plain = load.load(source, DataConfig())
    assert plain.titles is None and plain.card["hash"] == found.card["hash"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "id,title\na,A\nb,B\n",
            "has titles of a, b ... and shop has the items 1, 2, 3 ...: no id",
        ),
        ("id,price\n1,3\n", "has no column of titles: found 'id', 'price', expected item_id and"),
        ("code,title\n1,A\n", "has no column of ids: found 'code', 'title'"),
        ("", "is empty"),
        (None, "is no file; name a table of item ids and titles"),
    ],
)
def test_titles_that_cannot_be_used_are_one_sentence(shop, text, said):
    path = shop / "other.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError) as caught:
        load.load(str(shop / "shop.csv"), DataConfig(titles=str(path)))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_run_keeps_its_titles(shop, capsys):
    run_model = pytest.importorskip("jaxrec_diff.reporting.run_model")  # needs matplotlib
    run, file = shop / "run", shop / "titles.csv"
    command = ["train", "--model=mf", f"--data={shop / 'shop.csv'}", f"--workdir={run}"]
    small = ["--train.num-epochs=1", "--train.batch-size=16", "--model.width=4", "--devices=1"]
    assert cli.main([*command, *small, f"--data.titles={file}"]) == 0
    assert "  titles of 3 of 6 items: " in capsys.readouterr().out
    file.unlink()
    ask = ["recommend", f"--workdir={run}", "--history=3,4,6", "--k=3"]
    assert cli.main(ask) == 0
    table = capsys.readouterr().out
    assert {line.split(maxsplit=3)[-1] for line in table.splitlines()[1:]} >= {"One", "Two"}
    assert cli.main([*ask, "--json", "--titles"]) == 0
    found = json.loads(capsys.readouterr().out)
    (entry,) = found["lists"]
    by_id = dict(zip(entry["items"], entry["titles"], strict=True))
    assert by_id == {1: "One", 2: "Two", 5: "Five, <b>"} and found["histories"] == 1
    (found,) = recommend.recommend(run, histories=[[3, 4, 6]], k=3)
    assert dict(zip(found.items, found.titles, strict=True)) == by_id and "One" in repr(found)
    examples = run_model.examples(restore.restore(restore.reopen(run), run))
    assert "One; " in examples and "Five, &lt;b&gt;" in examples
    for ending in ("csv", "parquet", "jsonl"):
        output = shop / f"top.{ending}"
        more = [f"--output={output}", "--k=6", "--titles", "--include-seen", "--quiet"]
        assert cli.main(["recommend", f"--workdir={run}", *more]) == 0
    rows = pq.read_table(shop / "top.parquet").to_pylist()
    lines = [json.loads(line) for line in (shop / "top.jsonl").read_text().splitlines()]
    assert [row["titles"] for row in rows] == [line["titles"] for line in lines]
    assert set(rows[0]["titles"]) == {"One", "Two", "Five, <b>", ""}
    assert '"Five, <b>"' in (shop / "top.csv").read_text()
