"""The Python calls make the runs of the commands, from any table."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import api, cli, config
from jaxrec_diff.data import frames
from jaxrec_diff.inference import recommend
from jaxrec_diff.inference.types import Recommendation, Recommendations
from jaxrec_diff.reporting import leaderboard

COLUMNS = {
    "shopper": ["u-Zoë", "b", None, "b", "u-Zoë"],
    "sku": ["x", "y", "x", "", "z"],
    "when": [3.0, np.nan, 1.0, 2.0, 5.5],
}


def test_every_kind_of_table_is_the_same():
    want = pa.table({name: pa.array(v, from_pandas=True) for name, v in COLUMNS.items()})
    arrays = {name: np.array(values, dtype=object) for name, values in COLUMNS.items()}

    class Frame:  # whatever has columns
        columns = ("shopper", "sku", "when")

        def __getitem__(self, name):
            return COLUMNS[name]

    stream = type(
        "Stream", (), {"__arrow_c_stream__": lambda s, r=None: want.__arrow_c_stream__(r)}
    )
    coded = want.set_column(1, "sku", want["sku"].dictionary_encode())
    indexed = want.append_column("__index_level_0__", pa.array(range(5)))
    for given in (want, COLUMNS, arrays, Frame(), stream(), coded, indexed):
        assert frames.as_table(given).equals(want), type(given)
    lazy = type("Lazy", (), {"columns": COLUMNS, "collect": lambda self: stream()})
    assert frames.as_table(lazy()).equals(want)
    numbers = np.array([(1, 2), (3, 4)], dtype=[("user_id", "i8"), ("item_id", "i4")])
    assert frames.as_table(numbers).to_pydict() == {"user_id": [1, 3], "item_id": [2, 4]}


def test_text_and_numbers_in_one_column_keep_their_spelling():
    mixed = ["007", 7, None, 2**70, np.int64(8), float("nan")]
    want = ["007", "7", None, str(2**70), "8", None]
    for given in (mixed, np.array(mixed, object)):
        assert frames.as_table({"user_id": given}).to_pydict() == {"user_id": want}
    for odd in (1.5, True, ["x"], {"a": 1}):
        with pytest.raises(ValueError, match="column 'item_id' of the interactions mixes types"):
            frames.as_table({"item_id": ["a", 1, odd]})


def test_a_frame_of_pandas_is_too():
    pandas = pytest.importorskip("pandas", reason="a caller's library, not one of this package")
    frame = pandas.DataFrame(COLUMNS)
    frame["when"] = pandas.to_datetime(frame["when"], unit="s", utc=True)
    frame["sku"] = frame["sku"].astype("category")
    got = frames.as_table(frame[frame["sku"] != "z"])
    assert got.column_names == ["shopper", "sku", "when"] and got.num_rows == 4
    assert pa.types.is_timestamp(got.schema.field("when").type)
    assert got["shopper"].null_count == 1 and got["sku"].to_pylist() == ["x", "y", "x", ""]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((3, 2)), "type ndarray have no named columns"),
        (pa.chunked_array([["a", "b"]]), "type ChunkedArray have no named columns"),
        (["a", "b"], "type list have no named columns"),
        ({}, "type dict have no named columns"),
        ({"user_id": [1, 2], "item_id": [1]}, r"one length, got user_id \(2,\), item_id \(1,\)"),
    ],
)
def test_what_is_no_table_is_refused(given, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        api.train("mf", given, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_calls_and_commands_make_the_same_run(clicks, tmp_path, capsys):
    rows = [line.split(",") for line in clicks.read_text().splitlines()]
    table = {name: [row[place] for row in rows[1:]] for place, name in enumerate(rows[0])}
    settings = {
        "data.user": "visitor", "data.item": "product", "data.timestamp": "when",
        "data.ratio": (0.7, 0.2, 0.1), "model.width": 8, "train.batch_size": 32,
        "train.num_epochs": 2, "devices": 1,
    }  # fmt: skip
    found = api.train("mf", table, tmp_path / "called", settings=settings)
    assert capsys.readouterr().out == ""  # no terminal
    flags = [
        f"--{name.replace('_', '-')}={'0.7,0.2,0.1' if name == 'data.ratio' else value}"
        for name, value in settings.items()
    ]
    commanded = tmp_path / "commanded"
    assert (
        cli.main(["train", "--model=mf", f"--data={clicks}", f"--workdir={commanded}", *flags]) == 0
    )
    want = json.loads((commanded / "results.json").read_text())
    for name in ("metrics", "controls", "data_hash", "best_step"):
        assert found[name] == want[name], name
    assert found == json.loads((tmp_path / "called" / "results.json").read_text())

    again = api.evaluate(tmp_path / "called", split="valid", settings={"eval.seeds": 2})
    assert (again["split"], again["seeds"]) == ("valid", 2)
    assert cli.main(["evaluate", f"--workdir={tmp_path / 'called'}"]) == 0  # from the kept table
    lists = recommend.recommend(tmp_path / "called", histories=[["shoe-01"]], k=3)
    assert lists == recommend.recommend(commanded, histories=[["shoe-01"]], k=3)

    assert found.recommend(histories=[["shoe-01"]], k=3) == lists
    assert found._loaded[1] is (found.recommend(users=["u-07"], k=3) and found._loaded[1])
    assert found.evaluate("valid")["split"] == "valid"
    assert repr(found).startswith(f"<mf on called: {found['selected_by'].split()[-1]} 0.")
    assert "popularity 0." in repr(found) and len(repr(found)) < 300
    rows = found.to_arrow().to_pylist()
    assert rows[0] == {"model": "mf"} | found["metrics"] and rows[1]["model"] == "popularity"

    board = api.compare(tmp_path / "called", resamples=100)
    assert board.to_arrow().num_rows == 1 + len(found["controls"]) and "mf" in repr(board)
    with pytest.raises(ValueError, match=r"metrics='hr@10' is no list; write metrics=\['hr@10'\]"):
        api.compare(tmp_path / "called", metrics="hr@10")
    renamed = [f"{name}x" if name == max(table["visitor"]) else name for name in table["visitor"]]
    pq.write_table(pa.table(table | {"visitor": renamed}), tmp_path / "renamed.parquet")
    with pytest.raises(ValueError, match="users .* was trained on, and mf knows them by number"):
        api.evaluate(tmp_path / "called", data=str(tmp_path / "renamed.parquet"))
    with pytest.raises(ValueError, match="other interactions; take another workdir"):
        api.train("mf", {**table, "product": table["product"][::-1]}, tmp_path / "called")
    with pytest.raises(ValueError, match="split must be valid or test, got 'tset'"):
        api.evaluate(tmp_path / "called", split="tset")
    with pytest.raises(
        ValueError, match="nowhere does not exist; name a workdir that bin/train made"
    ):
        api.evaluate(tmp_path / "nowhere")
    capsys.readouterr()


def test_a_thread_may_train(clicks, tmp_path):
    settings = {
        "data.user": "visitor", "data.item": "product", "data.timestamp": "when",
        "model.width": 8, "train.batch_size": 32, "train.num_epochs": 1, "devices": 1,
    }  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(api.train, "mf", clicks, tmp_path / "run", settings=settings).result()
    assert found["steps"] > 0


def test_a_training_can_be_heard(monkeypatch, tmp_path, capsys):
    small = {
        "data.synthetic.num_users": 60, "data.synthetic.num_items": 40, "model.width": 8,
        "data.synthetic.num_interests": 4, "data.synthetic.max_length": 8,
        "train.batch_size": 32, "train.num_epochs": 1, "devices": 1,
    }  # fmt: skip
    told = []
    ask = {"settings": small, "on_progress": told.append}
    api.train("mf", "synthetic", tmp_path / "a", **ask, log=told.append, progress=True)
    assert capsys.readouterr().out == "" and {event.kind for event in told} >= {"train", "epoch"}
    api.train("mf", "synthetic", tmp_path / "b", settings=small, progress=True)
    said = capsys.readouterr().out
    assert "compiling ..." in said and "epoch 1  step" in said


def told_of(tmp_path):
    """Results, lists and a leaderboard, as the calls return them."""
    results = {
        "model": "mf", "dataset": "shop", "selected_by": "valid hr@10", "metrics": {"hr@10": 0.5},
        "controls": {"popularity": {"hr@10": 0.25}},
    }  # fmt: skip
    row = Recommendation("u-1", ["x", "y"], [2.0, 1.0], None, False, [], ["Hat", ""])
    values = {"ndcg@10": np.array([0.0, 1.0]), "popularity:ndcg@10": np.array([0.0, 0.5])}
    told = {"data_hash": "f" * 64, "protocol": "honest", "dataset": "shop", "seed": 0}
    run = leaderboard.Run("mf", "runs/mf", "{}", told, np.arange(2), values)
    board = api.Board(leaderboard.board([run], resamples=100))
    return api.Fitted(results, tmp_path), Recommendations([row], []), board


def test_results_are_frames_of_pandas(tmp_path):
    pytest.importorskip("pandas", reason="a caller's library, not one of this package")
    fitted, lists, board = (each.to_pandas() for each in told_of(tmp_path))
    assert fitted.to_dict("list") == {"model": ["mf", "popularity"], "hr@10": [0.5, 0.25]}
    assert list(lists.columns) == ["user", "rank", "item", "score", "title"]
    assert lists["title"].tolist() == ["Hat", ""] and lists["rank"].tolist() == [1, 2]
    assert board.set_index("model")["ndcg@10"].to_dict() == {"mf": 0.5, "popularity": 0.25}


def test_without_pandas_a_frame_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for each in told_of(tmp_path):
        with pytest.raises(ValueError, match=r"needs pandas; to_arrow\(\) gives a table without"):
            each.to_pandas()


def test_settings_are_those_that_training_takes():
    for name in ("dreamrec", "ddrm"):
        experiment = config.preset(name, "synthetic").experiment
        assert config.configure(experiment, api.settings(name, "synthetic")) == experiment
    assert list(api.list_models()) == config.preset_names() and all(api.list_models().values())
    with pytest.raises(ValueError, match="did you mean dreamrec"):
        api.settings("dreamrek")
