"""A run with an earlier phase, from flags to files."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.data import views
from jaxrec_diff.experiments import prepare
from jaxrec_diff.experiments import run as experiments_run
from jaxrec_diff.experiments import workdir as experiments_workdir

DATA = [
    "--devices=1",
    "--data.synthetic.num-users=80",
    "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4",
    "--data.synthetic.max-length=8",
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
        assert arrays["users"].shape == (80, 8) and arrays["items"].shape == (40, 8)
    epochs = [json.loads(line)["epoch"] for line in (stage / "metrics.jsonl").open()]
    assert epochs == [1.0, 2.0, 3.0]
    results = json.loads((workdir / "results.json").read_text())
    assert {"backbone", "mean_item"} <= set(results["diagnostics"])


def test_settings_with_a_phase_come_back(workdir):
    name, source, experiment = experiments_workdir.read_config(workdir)
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
    assert experiments_workdir.read_config(given)[2].backbone is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backbone=none.npz"], "none.npz does not exist"),
        (["--backbone=lightgnc"], "did you mean lightgcn?"),
        (["--backbone=dimerec"], "needs an array 'users'"),
        (["--backbone=ddrm"], "needs a backbone itself"),
        ([*BACKBONE[:2], "--backbone.train.batch-size=1000000"], "at most"),
        ([*BACKBONE[:2], "--eval.metric=loss"], "which ddrm does not"),
        ([*BACKBONE[:2], "--backbone.eval.metric=loss"], "which mf does not"),
        (["--backbone.train.batchsize=3"], "did you mean --backbone.train.batch-size?"),
    ],
)
def test_bad_backbones_are_refused_before_anything_is_written(tmp_path, capsys, flags, said):
    assert train(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_arrays_without_what_is_needed_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "half.npz", items=np.ones((40, 8)))
    assert train(tmp_path / "run", f"--backbone={tmp_path / 'half.npz'}") == 2
    assert "half.npz has items" in capsys.readouterr().err
    (tmp_path / "junk.npz").write_bytes(b"junk")
    assert train(tmp_path / "run", f"--backbone={tmp_path / 'junk.npz'}") == 2
    assert "cannot be read as npz" in capsys.readouterr().err


@pytest.mark.parametrize("array", ["items", "clusters", "users"])
def test_clusters_alone_do_for_latent_diffusion(tmp_path, array):
    given = (
        np.arange(40) % 2 if array == "clusters" else np.random.default_rng(0).normal(size=(40, 3))
    )
    np.savez(tmp_path / "given.npz", **{array: given})
    flags = [flag.removeprefix("--") for flag in DATA if ".synthetic." in flag or "batch" in flag]
    chosen = config.preset("ldiffrec", "synthetic").experiment
    chosen = config.parse(
        config.with_backbone(chosen, str(tmp_path / "given.npz"), "synthetic"),
        [*(f"--{flag}" for flag in flags), "--model.clusters=2"],
    )
    if array == "users":
        with pytest.raises(ValueError, match="needs an array 'items' or 'clusters', but .* users"):
            prepare.prepare("ldiffrec", chosen, "synthetic")
        return
    prepared = prepare.prepare("ldiffrec", chosen, "synthetic")
    assert list(prepared.exports) == [array]
    experiments_run.build(prepared)


def test_other_generated_items_are_other_data(tmp_path):
    chosen = config.parse(
        config.preset("sasrec", "synthetic").experiment,
        [f for f in DATA if ".synthetic." in f] + ["--train.batch-size=32", "--devices=1"],
    )
    raw = prepare.prepare("sasrec", chosen, "synthetic")
    prefix = np.random.default_rng(0).integers(1, 41, (raw.dataset.num_users, 3))
    other = np.where(np.arange(3) == 1, prefix % 40 + 1, prefix)
    kept, changed = (
        raw._replace(dataset=views.longer(raw.dataset, items.astype(np.int32)))
        for items in (prefix, other)
    )
    assert kept.dataset.card["hash"] == raw.dataset.card["hash"]  # the same split
    experiments_workdir.open_workdir(kept, tmp_path / "run")
    experiments_workdir.check_workdir(kept, tmp_path / "run")
    for another in (changed, raw):
        with pytest.raises(ValueError, match="was trained on generated items with hash"):
            experiments_workdir.check_workdir(another, tmp_path / "run")
    experiments_workdir.open_workdir(raw, tmp_path / "raw")
    with pytest.raises(ValueError, match="generated items with hash none, this data has"):
        experiments_workdir.check_workdir(kept, tmp_path / "raw")


def test_a_folder_without_a_newer_field_has_its_default(tmp_path):
    chosen = config.parse(
        config.preset("sasrec", "synthetic").experiment,
        [f for f in DATA if ".synthetic." in f] + ["--train.batch-size=32", "--devices=1"],
    )
    prepared = prepare.prepare("sasrec", chosen, "synthetic")
    prepared = prepared._replace(name="sasrec+diffuasr")  # as the last stage of a pipeline is
    experiments_workdir.open_workdir(prepared, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    stored = json.loads(path.read_text())
    assert stored["data"].pop("recent") == 0
    path.write_text(json.dumps(stored))
    experiments_workdir.check_workdir(prepared, tmp_path / "run")
    cut = replace(chosen, data=replace(chosen.data, recent=5))
    with pytest.raises(ValueError, match="holds a run with data.recent: 0 there, 5 here"):
        experiments_workdir.check_workdir(prepared._replace(experiment=cut), tmp_path / "run")


def test_a_tracked_test_is_the_test_of_the_best_epoch(tmp_path):
    flags = [flag for flag in DATA if "--model" not in flag] + ["--train.num-epochs=3"]
    flags = [flag for flag in flags if flag != "--train.num-epochs=2"]
    command = ["train", "--model=mf", f"--workdir={tmp_path / 'run'}", "--eval.track-test=true"]
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


def test_a_model_without_phases_takes_none(capsys):
    assert cli.main(["train", "--model=dimerec", "--backbone=mf"]) == 2
    assert "takes none" in capsys.readouterr().err
    assert config.preset("dimerec", "synthetic").experiment.backbone is None


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
