"""The commands from flags to files, on data small enough for a test."""

import json
import shutil
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.training import progress

SMALL = [
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


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "--model=dimerec", f"--workdir={folder}", *SMALL,
                     "--train.num-epochs=2"]) == 0  # fmt: skip
    return folder


def test_results_hold_what_is_promised(workdir):
    results = json.loads((workdir / "results.json").read_text())
    needed = (
        "model dataset split num_users metrics controls optimum best_step steps "
        "examples_per_second wall_seconds devices versions commit command seed device"
    )
    assert not set(needed.split()) - set(results)
    assert results["num_users"] == 60 and set(results["controls"]) == {"popularity", "transitions"}
    assert 0 <= results["metrics"]["hr@10"] <= 1
    assert results["optimum"]["hr@10"] >= results["controls"]["popularity"]["hr@10"] - 0.2
    for name in ("config.json", "data_card.json", "metrics.jsonl", "vocab.npz"):
        assert (workdir / name).exists()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1.0, 2.0]


def test_a_finished_run_is_reported_not_repeated(workdir, capsys):
    before = (workdir / "results.json").read_bytes()
    flags = [*SMALL, "--train.num-epochs=2"]
    assert cli.main(["train", "--model=dimerec", f"--workdir={workdir}", *flags]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (workdir / "results.json").read_bytes() == before


def test_a_finished_run_goes_on_to_more_epochs(workdir, tmp_path):
    longer = shutil.copytree(workdir, tmp_path / "longer")
    found = []
    for folder in (longer, tmp_path / "at-once"):
        flags = [f"--workdir={folder}", *SMALL, "--train.num-epochs=3"]
        assert cli.main(["train", "--model=dimerec", *flags]) == 0
        results = json.loads((folder / "results.json").read_text())
        found.append([results[name] for name in ("steps", "best_step", "best_valid", "metrics")])
    assert found[0] == found[1]
    assert found[0][0] > json.loads((workdir / "results.json").read_text())["steps"]


def test_json_is_all_that_stdout_holds(workdir, capsys):
    flags = ["train", "--model=dimerec", f"--workdir={workdir}", *SMALL, "--train.num-epochs=2"]
    for more, quiet in (["--json"], False), (["--json", "--quiet"], True), (["--quiet"], True):
        assert cli.main([*flags, *more]) == 0
        said = capsys.readouterr()
        if "--json" in more:
            results = json.loads((workdir / "results.json").read_text())
            assert json.loads(said.out) == results
        else:
            assert said.out == ""
        assert ("is finished" in said.err) != quiet


def test_other_settings_are_refused(workdir, capsys):
    flags = [*SMALL, "--train.learning-rate=0.5"]
    assert cli.main(["train", "--model=dimerec", f"--workdir={workdir}", *flags]) == 2
    assert "train.learning_rate: 0.002 there, 0.5 here" in capsys.readouterr().err


def test_evaluation_with_another_sampler(workdir, tmp_path, capsys):
    table = tmp_path / "users.parquet"
    code = cli.main(
        ["evaluate", f"--workdir={workdir}", "--sampler=ddim", "--sampler-steps=2", "--seeds=2",
         f"--per-user={table}", "--split=valid"]
    )  # fmt: skip
    assert code == 0
    found = [path for path in workdir.glob("evaluation-*.json")]
    assert len(found) == 1
    results = json.loads(found[0].read_text())
    assert results["sampler"]["kind"] == "ddim" and results["split"] == "valid"
    rows = pq.read_table(table)
    assert rows.num_rows == 60
    np.testing.assert_allclose(np.mean(rows["hr@10"]), results["metrics"]["hr@10"], rtol=1e-6)
    assert "deviation over 2 draws" in capsys.readouterr().out


def test_a_csv_with_holes_from_training_to_lists(tmp_path, capsys):
    """Ids of text, times in several zones, holes, repeated rows and a column of no use."""
    rng = np.random.default_rng(1)
    lines = []
    for user in range(50):
        item = rng.integers(20)
        for place in range(7):
            zone = ("Z", "+02:00", "-05:00")[place % 3]
            lines.append(f"u-Zoë {user},SKU-{item:02d},2026-01-0{place + 1}T12:00:00{zone},9.5")
            item = (item + rng.integers(1, 3)) % 20
    lines += lines[:5] + [",SKU-01,2026-01-01T12:00:00Z,", "u-Zoë 3,SKU-02,NA,1", "u-Zoë 4,,,"]
    source = tmp_path / "clicks.csv"
    source.write_text("user,sku,event_time,price\n" + "\n".join(lines) + "\n")
    workdir, flags = tmp_path / "run", ["--devices=1", "--train.batch-size=16", "--model.width=8"]
    command = ["train", "--model=mf", f"--data={source}", f"--workdir={workdir}", *flags]
    assert cli.main([*command, "--train.num-epochs=1"]) == 0
    said = capsys.readouterr().out
    assert "left out 3 of 358 rows: no user in 1, no sku in 1, no event_time in 2" in said
    assert max(map(len, said.splitlines()[:-1])) <= 80
    card = json.loads((workdir / "data_card.json").read_text())
    assert card["missing"]["all"]["left_out"] == 3 and card["filters"][0]["interactions"] == 355
    assert cli.main(["evaluate", f"--workdir={workdir}"]) == 0
    history = "SKU-03, SKU-04,no such"
    assert cli.main(["recommend", f"--workdir={workdir}", f"--history={history}", "--k=3"]) == 0
    said = capsys.readouterr()
    assert said.out.count("SKU-") == 3 and "SKU-03" not in said.out
    assert "skipped 1 unknown id" in said.err


def test_evaluation_prints_json_or_nothing(workdir, tmp_path, capsys):
    output = tmp_path / "found.json"
    flags = ["evaluate", f"--workdir={workdir}", "--split=valid", f"--output={output}"]
    for more in ["--json"], ["--json", "--quiet"], ["--quiet"]:
        assert cli.main([*flags, *more]) == 0
        said = capsys.readouterr()
        if "--json" in more:
            assert json.loads(said.out) == json.loads(output.read_text())
        else:
            assert said.out == ""
        assert ("results are in" in said.err) == ("--quiet" not in more)


def test_evaluation_refuses_what_training_alone_reads(workdir, capsys):
    flags = ["evaluate", f"--workdir={workdir}", "--data.prefix-dedup=true"]
    assert cli.main(flags) == 2
    assert "--data.prefix-dedup changes nothing in an evaluation" in capsys.readouterr().err


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


@pytest.mark.parametrize(
    ("last", "best"), [("backbone", "0.5000"), ("generator", "0.7000"), ("", "0.2000")]
)
def test_the_bar_of_a_phase_knows_its_own_best(monkeypatch, capsys, last, best):
    made = config.preset("diffuasr", "synthetic").experiment
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    hits = f"valid/{made.backbone.eval.metric}"
    figures = {
        "backbone": (hits, 0.5, 0.4),
        "generator": ("valid/loss", 0.7, 0.8),  # lower is better
        "": (hits, 0.1, 0.2),
    }
    with cli._progress(made) as tell:
        for phase, (name, *values) in figures.items():
            for value in values:
                tell(progress.Progress("epoch", 8, 8, 1.0, 9.0, {name: value, "loss": 1.0}, phase))
        tell(progress.Progress("train", 1, 8, 0.1, 9.0, {"loss": 0.3}, last))
    assert f"loss 0.3000 best {best}" in capsys.readouterr().out
