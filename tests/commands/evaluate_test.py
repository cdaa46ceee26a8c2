"""A trained workdir evaluated again."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq

from jaxrec_diff import cli


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


def test_a_fast_sampler_of_other_settings_is_said_to_be_unproven(workdir, tmp_path, capsys):
    flags = ["evaluate", f"--workdir={workdir}", f"--output={tmp_path / 'found.json'}", "--quiet"]
    assert cli.main([*flags, "--sampler=fast"]) == 0
    said = capsys.readouterr().err
    assert "fast sampler of dimerec was not measured with model.width=8 (there " in said
    assert cli.main([*flags, "--sampler=ddim"]) == 0
    assert "fast sampler" not in capsys.readouterr().err


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


def test_settings_that_make_other_arrays_are_named(workdir, tmp_path, capsys):
    trained = json.loads((workdir / "config.json").read_text())["model"]["width"]
    flags = [f"--workdir={workdir}", "--model.width=24", "--sampler=ddim", "--sampler-steps=2"]
    assert cli.main(["evaluate", *flags]) == 2
    said = f"do not fit model.width=24: they were trained with model.width={trained}; train in"
    assert said in capsys.readouterr().err
    # what is damaged is damaged, whatever is asked beside
    broken = shutil.copytree(workdir, tmp_path / "broken")
    for path in (broken / "checkpoints").glob("*/state/**/*"):
        if path.is_file():
            path.write_bytes(b"junk")
    assert cli.main(["evaluate", f"--workdir={broken}", "--model.width=24"]) == 2
    assert "can be read; train in a new workdir" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_is_said_with_the_step_that_is_scored(workdir, tmp_path, capsys):
    broken, output = shutil.copytree(workdir, tmp_path / "broken"), tmp_path / "found.json"
    best = json.loads((workdir / "results.json").read_text())["best_step"]
    steps = sorted(int(path.name) for path in (broken / "checkpoints").glob("[0-9]*"))
    (other,) = set(steps) - {best}
    for path in (broken / "checkpoints" / str(best) / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"junk")
    command = ["evaluate", f"--workdir={broken}", f"--output={output}", "--quiet"]
    assert cli.main(command) == 0
    said = f"the best checkpoint, of step {best}, is damaged or gone; the figures are those of step"
    assert f"warning: {said} {other}, " in capsys.readouterr().err
    assert json.loads(output.read_text())["step"] == other
    # reading changes nothing on disk
    assert {path.name for path in (broken / "checkpoints").iterdir()} == {str(best), str(other)}
    shutil.rmtree(broken / "checkpoints" / str(other) / "state")
    assert cli.main(command) == 2
    assert "can be read; train in a new workdir" in capsys.readouterr().err


def test_an_evaluation_counts_its_rows(workdir):
    """Every row of both draws, batch by batch, in the order of time."""
    from jaxrec_diff.experiments import judging, restore

    told = []
    run = restore.reopen(workdir, ["--eval.seeds=2", "--eval.batch-size=24"])
    results, *_ = judging.evaluation(run, workdir, "valid", told.append)
    rows = results["num_users"]
    assert sum(told) == 2 * rows and len(told) == 2 * -(-rows // 24)
    plain, *_ = judging.evaluation(run, workdir, "valid")
    assert results["metrics"] == plain["metrics"]
