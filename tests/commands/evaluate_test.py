"""A trained workdir evaluated again."""

import json

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
