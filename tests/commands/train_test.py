"""Training from flags to files, on data small enough for a test."""

import json
import os
import resource
import shlex
import shutil

import jax
import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.experiments import locks


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


def test_a_finished_run_is_reported_not_repeated(workdir, capsys, small):
    before = (workdir / "results.json").read_bytes()
    flags = [*small, "--train.num-epochs=2"]
    assert cli.main(["train", "--model=dimerec", f"--workdir={workdir}", *flags]) == 0
    assert "is finished" in capsys.readouterr().out
    assert (workdir / "results.json").read_bytes() == before


def test_a_finished_run_goes_on_to_more_epochs(workdir, tmp_path, small):
    longer = shutil.copytree(workdir, tmp_path / "longer")
    found = []
    for folder in (longer, tmp_path / "at-once"):
        flags = [f"--workdir={folder}", *small, "--train.num-epochs=3"]
        assert cli.main(["train", "--model=dimerec", *flags]) == 0
        results = json.loads((folder / "results.json").read_text())
        found.append([results[name] for name in ("steps", "best_step", "best_valid", "metrics")])
    assert found[0] == found[1]
    assert found[0][0] > json.loads((workdir / "results.json").read_text())["steps"]


def test_json_is_all_that_stdout_holds(workdir, capsys, small):
    flags = ["train", "--model=dimerec", f"--workdir={workdir}", *small, "--train.num-epochs=2"]
    for more, quiet in (["--json"], False), (["--json", "--quiet"], True), (["--quiet"], True):
        assert cli.main([*flags, *more]) == 0
        said = capsys.readouterr()
        if "--json" in more:
            results = json.loads((workdir / "results.json").read_text())
            assert json.loads(said.out) == results
        else:
            assert said.out == ""
        assert ("is finished" in said.err) != quiet


def test_other_settings_are_refused(workdir, capsys, small):
    flags = [*small, "--train.learning-rate=0.5"]
    assert cli.main(["train", "--model=dimerec", f"--workdir={workdir}", *flags]) == 2
    assert "train.learning_rate: 0.002 there, 0.5 here" in capsys.readouterr().err


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
    told, _, following = said.partition("everything is in ")
    assert max(map(len, told.splitlines())) <= 80
    first, *commands = following.splitlines()
    assert first == str(workdir) and len(commands) == 4
    recommend, serve, compare, export = (shlex.split(line) for line in commands)
    assert recommend[:2] == ["bin/recommend", f"--workdir={workdir}"]
    assert recommend[2].count("SKU-") == 3 and compare == ["bin/compare", str(workdir)]
    assert export == ["bin/export", f"--workdir={workdir}", f"--output={workdir}-serving"]
    assert cli.main([recommend[0].removeprefix("bin/"), *recommend[1:]]) == 0
    assert capsys.readouterr().out.count("SKU-") > 3
    card = json.loads((workdir / "data_card.json").read_text())
    assert card["missing"]["all"]["left_out"] == 3 and card["filters"][0]["interactions"] == 355
    assert cli.main(["evaluate", f"--workdir={workdir}"]) == 0
    history = "SKU-03, SKU-04,no such"
    assert cli.main(["recommend", f"--workdir={workdir}", f"--history={history}", "--k=3"]) == 0
    said = capsys.readouterr()
    assert said.out.count("SKU-") == 3 and "SKU-03" not in said.out
    assert "skipped 1 unknown id" in said.err


def test_a_log_without_its_checkpoints_is_begun_anew_and_said(workdir, tmp_path, capsys, small):
    cut = shutil.copytree(workdir, tmp_path / "cut")
    (cut / "results.json").unlink()
    shutil.rmtree(cut / "checkpoints")
    flags = [*small, "--train.num-epochs=2"]
    assert cli.main(["train", "--model=dimerec", f"--workdir={cut}", *flags]) == 0
    assert (
        "holds no checkpoint of the 2 evaluations in its metrics.jsonl; training starts again "
        in (capsys.readouterr().out)
    )
    logs = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (workdir, cut)
    ]
    assert [line["step"] for line in logs[1]] == [line["step"] for line in logs[0]]
    assert [line["loss"] for line in logs[1]] == [line["loss"] for line in logs[0]]


def test_a_second_run_in_one_workdir_is_refused(workdir, tmp_path, capsys, small):
    cut = shutil.copytree(workdir, tmp_path / "cut")
    (cut / "results.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*")}
    command = ["train", "--model=dimerec", f"--workdir={cut}", *small, "--train.num-epochs=3"]
    with locks.writer(cut):
        assert cli.main(command) == 2
        said = capsys.readouterr().err
        assert f"is in use by process {os.getpid()} on " in said and said.count("\n") == 1
        # reading is not refused, unless it writes there
        output = tmp_path / "found.json"
        assert cli.main(["evaluate", f"--workdir={cut}", f"--output={output}", "--quiet"]) == 0
        assert cli.main(["evaluate", f"--workdir={cut}", "--quiet"]) == 2
        assert "is in use by process" in capsys.readouterr().err
    after = {path: path.stat().st_mtime_ns for path in cut.rglob("*")}
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed <= {"run.lock", "cut"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_sentence_and_loses_nothing(
    workdir, tmp_path, capsys, small, monkeypatch
):
    command = ["train", "--model=dimerec", *small, "--train.num-epochs=2"]
    full = tmp_path / "full"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1e9")  # it is on no such disk
    least = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9)
    try:
        for most in (200, 3000, 12_000):  # in the set-up, in the log's first checkpoint, in arrays
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            assert cli.main([*command, f"--workdir={full}"]) == 4
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            said = capsys.readouterr().err
            assert said.startswith("error: ") and said.count("\n") == 1
            assert " cannot be written: the file would be larger than is allowed here; what" in said
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    assert cli.main([*command, f"--workdir={full}"]) == 0
    one, other = (json.loads((each / "results.json").read_text()) for each in (workdir, full))
    assert one["metrics"] == other["metrics"] and one["best_step"] == other["best_step"]
