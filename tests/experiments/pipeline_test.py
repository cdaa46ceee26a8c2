"""A run with an earlier phase, from flags to files."""

import json
import shutil

import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.experiments import workdirs

DATA = [
    "--devices=1",
    "--data.synthetic.num-users=60",
    "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4",
    "--data.synthetic.max-length=8",
    "--data.max-len=6",
    "--eval.batch-size=64",
    "--model.dims=6",
    "--model.num-steps=4",
    "--train.batch-size=32",
    "--train.num-epochs=2",
]
BACKBONE = [
    "--backbone=mf",
    "--backbone.model.width=8",
    "--backbone.train.batch-size=32",
    "--backbone.train.num-epochs=3",
]


def train(workdir, *flags):
    return cli.main(["train", "--model=ddrm", f"--workdir={workdir}", *DATA, *flags])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases") / "run"
    assert train(folder, *BACKBONE) == 0
    return folder


def test_the_backbone_is_a_run_of_its_own(workdir):
    stage = workdir / "stages" / "backbone"
    with np.load(stage / "export.npz") as arrays:
        assert arrays["users"].shape == (60, 8) and arrays["items"].shape == (40, 8)
    epochs = [json.loads(line)["epoch"] for line in (stage / "metrics.jsonl").open()]
    assert epochs == [1.0, 2.0, 3.0]
    results = json.loads((workdir / "results.json").read_text())
    assert {"backbone", "mean_item"} <= set(results["diagnostics"])


def test_settings_with_a_phase_come_back(workdir):
    name, source, experiment = workdirs.read_config(workdir)
    assert (name, source) == ("ddrm", "synthetic")
    assert experiment.backbone.preset == "mf" and experiment.backbone.model.width == 8


def test_evaluation_finds_what_the_backbone_left(workdir, tmp_path):
    out = tmp_path / "again.json"
    assert cli.main(["evaluate", f"--workdir={workdir}", f"--output={out}"]) == 0
    again, first = (json.loads(p.read_text()) for p in (out, workdir / "results.json"))
    assert again["metrics"] == pytest.approx(first["metrics"], abs=1e-6)


def test_a_run_stopped_between_phases_goes_on(workdir, tmp_path):
    # What a kill between the phases leaves: the backbone's export and nothing of the run itself.
    cut = tmp_path / "cut"
    shutil.copytree(workdir, cut)
    for path in ("results.json", "metrics.jsonl"):
        (cut / path).unlink()
    shutil.rmtree(cut / "checkpoints")
    marked = (cut / "stages" / "backbone" / "export.npz").stat().st_mtime_ns
    assert train(cut, *BACKBONE) == 0
    assert (cut / "stages" / "backbone" / "export.npz").stat().st_mtime_ns == marked
    results = [json.loads((d / "results.json").read_text()) for d in (workdir, cut)]
    assert results[0]["metrics"] == results[1]["metrics"]


def test_given_arrays_take_the_backbones_place(workdir, tmp_path):
    # under the names of a released checkpoint
    with np.load(workdir / "stages" / "backbone" / "export.npz") as arrays:
        tables = {"embedding_user.weight": arrays["users"], "items_feature.weight": arrays["items"]}
    np.savez(tmp_path / "tables.npz", **tables)
    given = tmp_path / "given"
    assert train(given, f"--backbone={tmp_path / 'tables.npz'}") == 0
    assert not (given / "stages").exists()
    results = [json.loads((d / "results.json").read_text()) for d in (workdir, given)]
    assert results[0]["metrics"] == results[1]["metrics"]
    assert workdirs.read_config(given)[2].backbone is None


def test_a_tracked_test_is_the_test_of_the_best_epoch(tmp_path):
    flags = [flag for flag in DATA if "--model" not in flag] + ["--train.num-epochs=3"]
    flags = [flag for flag in flags if flag != "--train.num-epochs=2"]
    command = ["train", "--model=mf", f"--workdir={tmp_path / 'run'}", "--eval.track-test=true"]
    command += ["--model.width=8"]
    assert cli.main([*command, *flags]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines})
    (best,) = [line for line in lines if line["step"] == results["best_step"]]
    for name, value in results["metrics"].items():
        assert best[f"test/{name}"] == pytest.approx(value, abs=1e-6)
    picked = results["selected_by"].split()[-1]
    assert best[f"valid/{picked}"] == pytest.approx(results["best_valid"], abs=1e-4)
    assert any(best[f"valid/{n}"] != best[f"test/{n}"] for n in results["metrics"])


@pytest.mark.slow
def test_latent_diffusion_clusters_the_arrays_it_is_given(tmp_path, capsys):
    # two groups of items, far apart
    points = np.random.default_rng(0).normal(size=(40, 4)) + 9.0 * (np.arange(40) % 4 == 0)[:, None]
    np.savez(tmp_path / "items.npz", items=points)
    flags = [
        *(flag for flag in DATA if "--model" not in flag), "--model.encoder-dims=6",
        "--model.denoiser-dims=6", "--model.process.num-steps=3",
    ]  # fmt: skip
    command = ["train", "--model=ldiffrec", *flags]
    run = f"--workdir={tmp_path / 'run'}"
    assert cli.main([*command, run, f"--backbone={tmp_path / 'items.npz'}"]) == 0
    assert cli.main(["evaluate", run, "--split=valid"]) == 0
    np.savez(tmp_path / "few.npz", items=points[:7])
    run = f"--workdir={tmp_path / 'few'}"
    assert cli.main([*command, run, f"--backbone={tmp_path / 'few.npz'}"]) == 2
    assert "has shape (7, 4), but there are 40 items" in capsys.readouterr().err
