"""Commands by name, and what cannot be run."""

import pytest

from jaxrec_diff import cli


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["train"], "name a model"),
        (["train", "--model=dimrec"], "did you mean dimerec"),
        (["train", "--model=dimerec", "--model=dreamrec"], "twice"),
        (["train", "--model=dimerec", "--data=no/such.csv"], "does not exist"),
        (["train", "--model=dimerec", "--train.batch-size=9999999", "--devices=1"], "at most"),
        (["train", "--model=sasrec", "--train.batch-size=9999999", "--devices=1"], "at most"),
        (["train", "--model=dimerec", "--devices=99"], "at most 8"),
        (["evaluate", "--workdir=nowhere"], "config.json"),
        (["nothing"], "expected one of"),
    ],
)
def test_refusals_are_one_line(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(flags) == 2
    said_there = capsys.readouterr().err
    assert said in said_there and said_there.count("\n") == 1
    assert not list(tmp_path.iterdir())
