"""What tests of the commands share: a small run."""

from pathlib import Path

import pytest

from jaxrec_diff import cli

_SMALL = [
    "--devices=1",
    "--data.synthetic.num-users=60",
    "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4",
    "--data.synthetic.max-length=8",
    "--data.max-len=6",
    "--train.batch-size=32",
    "--model.width=8",
    "--model.num-steps=4",
    "--model.num-negatives=16",
    "--eval.batch-size=64",
]


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Flags that make a DimeRec small enough for a test."""
    return list(_SMALL)


@pytest.fixture(scope="session")
def workdir(tmp_path_factory, small) -> Path:
    """A workdir of a finished run of two epochs; tests must leave its results as they are."""
    folder = tmp_path_factory.mktemp("commands") / "run"
    assert cli.main(["train", "--model=dimerec", f"--workdir={folder}", *small,
                     "--train.num-epochs=2"]) == 0  # fmt: skip
    return folder
