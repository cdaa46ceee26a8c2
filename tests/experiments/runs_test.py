"""What is refused before anything is written, and what a run is made of."""

import re

import numpy as np
import pytest

from jaxrec_diff import api, cli, config
from jaxrec_diff.experiments import phases, runs

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
        ([*BACKBONE[:2], "--eval.ks=5,20,1000000000"], "has 40 items; at most that"),
        (["--backbone.train.batchsize=3"], "did you mean --backbone.train.batch-size?"),
    ],
)
def test_bad_backbones_are_refused_before_anything_is_written(tmp_path, capsys, flags, said):
    assert train(tmp_path / "run", *flags) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model.width=32"], "take model.width=64, or backbone.model.width=32"),
        (["--model.table=random"], "give --backbone=none, or model.table=backbone"),
        (["--backbone=none"], "adrec needs an array 'items', but no backbone has none"),
    ],
)
def test_rows_of_a_backbone_that_do_not_fit_are_refused_before_it_is_trained(
    tmp_path, capsys, flags, said
):
    folder = tmp_path / "run"
    assert cli.main(["train", "--model=adrec", f"--workdir={folder}", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not folder.exists()


def test_settings_that_need_no_backbone_do_without():
    bare = {"model": "adrec", "data": "synthetic", "backbone": "none"}
    chosen = config.choose(bare).settings.experiment
    assert chosen.backbone is None
    chosen = config.configure(chosen, {"model.table": "random"})
    (phase,) = runs.prepare("adrec", chosen, "synthetic").phases
    assert phases.model_of(phase).given == {} and phases.model_of(phase).thawed == {}
    kept = config.from_json(config.preset("adrec", "synthetic").experiment, config.to_json(chosen))
    assert kept == chosen


@pytest.mark.parametrize(
    ("model", "flags", "said"),
    [
        ("dimerec", [], "loss of dimerec reads the whole .* dimerec --model.negatives=uniform"),
        ("sasrec", [], "loss of sasrec reads the whole .* sasrec --model.loss=sampled"),
        ("diffrec", [], "loss of diffrec reads the whole .* dimerec --model.negatives=uniform"),
        ("sasrec", ["--model.loss=bce", "--train.ema-decay=0.9"], "row_adagrad leaves alone"),
    ],
)
def test_rows_are_updated_only_where_negatives_are_drawn(tmp_path, capsys, model, flags, said):
    workdir = tmp_path / "run"
    flags = [*DATA[:6], *DATA[8:], "--train.optimizer=row_adagrad", *flags]
    assert cli.main(["train", f"--model={model}", f"--workdir={workdir}", *flags]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1
    assert not workdir.exists()


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
            runs.prepare("ldiffrec", chosen, "synthetic")
        return
    (phase,) = runs.prepare("ldiffrec", chosen, "synthetic").phases
    assert list(phase.spec.exports) == [array]
    phases.model_of(phase)


def test_a_model_without_phases_takes_none(capsys):
    assert cli.main(["train", "--model=dimerec", "--backbone=mf"]) == 2
    assert "this model starts from no other" in capsys.readouterr().err
    assert config.preset("dimerec", "synthetic").experiment.backbone is None


@pytest.mark.parametrize(
    ("items", "users", "said"),
    [("xxxy", 30, "leaves nothing to rank: 1 of its 2 items"), ("xxxx", 30, "holds one item"),
     ("abcde", 1, "holds one user")],
)  # fmt: skip
def test_data_that_leaves_nothing_to_rank_is_refused(tmp_path, capsys, items, users, said):
    rows = [f"{user},{item},{at}" for user in range(users) for at, item in enumerate(items)]
    source = tmp_path / "clicks.csv"
    source.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    command = ["train", "--model=mf", f"--data={source}", f"--workdir={tmp_path / 'run'}"]
    assert cli.main(command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def prepared(name: str, flags: list[str], typed=()):
    """A run on a few rows, the fields of `flags` and those of `typed` set by a user."""
    given = (*config.given(flags), *typed)
    chosen = config.parse(config.preset(name, "synthetic").experiment, [*DATA[1:6], *flags])
    return runs.prepare(name, chosen, "synthetic", typed=given)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_batch_that_nobody_typed_fits_the_data(devices):
    run = prepared("mf", [f"--devices={devices}"])
    examples = run.phases[0].batcher.num_examples
    size = run.experiment.train.batch_size
    whole = 2 ** int(np.log2(examples))  # on any number of devices that divides it
    assert size == whole // devices * devices and size <= examples < 2048
    assert run.phases[0].settings.train.batch_size == size
    (note,) = run.notes
    assert note.startswith(f"train.batch-size is {size}, not 2048: ")


def test_a_batch_that_somebody_typed_is_refused_where_it_is_too_large():
    with pytest.raises(ValueError, match=r"train.batch_size=2048 is larger than the \d+ training"):
        prepared("mf", ["--devices=1", "--train.batch-size=2048"])
    with pytest.raises(ValueError, match=r"train.batch_size=2048 is larger than the \d+ training"):
        prepared("mf", ["--devices=1"], typed=["train.batch-size"])
    small = prepared("mf", ["--devices=1", "--train.batch-size=50"])  # one that fits stays
    assert small.experiment.train.batch_size == 50 and small.notes == ()


def test_the_batch_of_a_backbone_fits_too():
    flags = ["--devices=1", "--model.dims=6", "--model.num-steps=4", "--train.batch-size=32"]
    run = prepared("ddrm", flags)
    first, own = run.phases
    size = first.settings.train.batch_size
    assert size < 2048 and own.settings.train.batch_size == 32
    assert (
        run.experiment.backbone.train.batch_size == size == own.settings.backbone.train.batch_size
    )
    assert run.notes[0].startswith(f"backbone.train.batch-size is {size}, not 2048")
    with pytest.raises(ValueError, match="train.batch_size=2048 is larger"):
        prepared("ddrm", flags, typed=["backbone.train.batch-size"])


def test_a_run_of_few_rows_is_the_same_when_it_is_asked_for_again(tmp_path, capsys):
    rows = [f"{user},{(user * 7 + at) % 11},{at}" for user in range(40) for at in range(5)]
    source, workdir = tmp_path / "clicks.csv", tmp_path / "run"
    source.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    command = ["train", "--model=mf", f"--data={source}", f"--workdir={workdir}", "--devices=1",
               "--model.width=4", "--train.num-epochs=1"]  # fmt: skip
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "train.batch-size is 64, not 2048: there are fewer training examples" in said
    assert '"batch_size": 64' in (workdir / "config.json").read_text()
    assert cli.main(command) == 0
    assert "is finished" in capsys.readouterr().out
    lines = []
    again = api.train("mf", source, workdir, log=lines.append,
                      settings={"devices": 1, "model.width": 4, "train.num_epochs": 1})  # fmt: skip
    assert again["steps"] == 1 and lines[0].startswith("train.batch-size is 64, not 2048")
    with pytest.raises(ValueError, match="batch_size=128 is larger than the 120"):
        api.train("mf", source, workdir, settings={"train.batch_size": 128, "devices": 1})
    # what a run has kept is typed: on still fewer rows it is refused
    other = tmp_path / "fewer.csv"
    other.write_text("\n".join(["user_id,item_id,timestamp", *rows[:60]]) + "\n")
    flags = [f"--preset={workdir / 'config.json'}", f"--data={other}"]
    assert cli.main(["train", "--model=mf", f"--workdir={tmp_path / 'other'}", *flags]) == 2
    assert "batch_size=64 is larger than" in capsys.readouterr().err
