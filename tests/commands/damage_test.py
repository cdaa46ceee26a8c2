"""Files of a workdir that hold something else: one sentence that names the file."""

import json
import shutil

import numpy as np
import pytest

from jaxrec_diff import cli

OTHER = ["", "{", "null", "[]", "[1, 2]", "7", '"text"', "{}", '{"schema": 99}', "[" * 100_000]


@pytest.fixture
def copy(workdir, tmp_path):
    return shutil.copytree(workdir, tmp_path / "run")


def one_sentence(capsys, name):
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and name in said, said


def train(folder, small):
    return cli.main(["train", "--model=dimerec", f"--workdir={folder}", *small,
                     "--train.num-epochs=2"])  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "data_card.json", "results.json"])
def test_json_of_another_kind(copy, capsys, small, name):
    for text in OTHER:
        if (name, text) == ("data_card.json", '{"schema": 99}'):
            continue  # a card has no schema, and lacks its hash as {} does
        (copy / name).write_text(text)
        assert train(copy, small) == 2
        one_sentence(capsys, name)
    for name in ("data_card.json", "results.json"):
        (copy / name).write_bytes(b"\xff\xfe\x00")
        assert train(copy, small) == 2
        capsys.readouterr()


@pytest.mark.parametrize(
    "changes",
    [{"metrics": [1]}, {"metrics": {"hr@10": "0.5"}}, {"controls": {"popularity": 3}},
     {"num_users": None}, {"model": 5}],
)  # fmt: skip
def test_results_of_another_shape(copy, capsys, small, changes):
    path = copy / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert train(copy, small) == 2
    one_sentence(capsys, "results.json")


def test_a_flipped_figure_is_found(copy, capsys, small):
    """Json that can be read, of the right types, and not what was written."""
    path = copy / "results.json"
    whole = path.read_text()
    found = json.loads(whole)
    at = whole.index('"hr@10": 0.') + len('"hr@10": 0.')
    path.write_text(whole[:at] + chr(ord(whole[at]) ^ 1) + whole[at + 1 :])
    assert json.loads(path.read_text())["metrics"] != found["metrics"]
    assert train(copy, small) == 2
    one_sentence(capsys, "results.json does not hold the figures that were written; remove it")
    assert cli.main(["compare", str(copy)]) == 2
    one_sentence(capsys, "results.json")
    path.write_text(json.dumps({k: v for k, v in found.items() if k != "seal"}))  # of before
    assert train(copy, small) == 0
    path.write_text(whole)
    assert train(copy, small) == 0


@pytest.mark.parametrize(
    ("place", "value"),
    [(("train", "batch_size"), "32"), (("train", "batch_size"), [32]), (("eval", "ks"), 5),
     (("data",), 5), (("model", "width"), None), (("seed",), 0.5), (("preset",), ["dimerec"]),
     (("source",), 3), (("train", "rules"), [[1]]), (("backbone",), 4)],
)  # fmt: skip
def test_settings_of_other_types(copy, capsys, place, value):
    path = copy / "config.json"
    kept = json.loads(path.read_text())
    inner = kept
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    path.write_text(json.dumps(kept))
    assert cli.main(["evaluate", f"--workdir={copy}"]) == 2
    one_sentence(capsys, "config.json")


def test_ids_that_cannot_be_read(copy, capsys):
    path = copy / "vocab.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 4
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(copy / "other.npz", schema=1, item_ids=arrays["item_ids"])
    lacking = (copy / "other.npz").read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"junk", bytes(flipped), lacking, None):
        if data is None:
            path.unlink()
        else:
            path.write_bytes(data)
        assert cli.main(["recommend", f"--workdir={copy}", "--history=1,2"]) == 2
        one_sentence(capsys, "vocab.npz")


def test_a_score_that_is_a_folder(copy, capsys, small):
    (copy / "results.json").unlink()
    (newest, *_) = sorted((copy / "checkpoints").glob("[0-9]*"), key=lambda p: -int(p.name))
    (newest / "metrics" / "metrics").unlink()
    (newest / "metrics" / "metrics").mkdir()
    assert cli.main(["evaluate", f"--workdir={copy}", "--quiet"]) == 0
    capsys.readouterr()
    assert train(copy, small) == 0
    assert f"the checkpoint of step {newest.name} is damaged" in capsys.readouterr().out


def test_values_of_users_that_cannot_be_read(copy, capsys):
    path = copy / "per_user.parquet"
    for data in (b"", b"junk", path.read_bytes()[:300]):
        path.write_bytes(data)
        assert cli.main(["compare", str(copy)]) == 2
        one_sentence(capsys, "per_user.parquet")


def test_another_split_is_said(copy, capsys):
    path = copy / "data_card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps(card | {"hash": "0" * 64}))
    assert cli.main(["evaluate", f"--workdir={copy}", "--quiet"]) == 0
    assert "is split otherwise (hash " in capsys.readouterr().err
