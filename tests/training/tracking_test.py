"""Event files and Weights & Biases: what is in them, also after a run was continued."""

import json
import struct
import sys
import types

import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.experiments import json_files, pipeline, runs
from jaxrec_diff.training import tracking

SMALL = [
    "--model=mf", "--devices=1", "--data.synthetic.num-users=60", "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4", "--data.synthetic.max-length=8", "--data.max-len=6",
    "--train.batch-size=32", "--eval.batch-size=64", "--model.width=8", "--quiet",
]  # fmt: skip


def scalars(folder):
    """(tag, step, value, wall time) of every scalar in a folder's event files, as they lie."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            found += [
                (v.tag, event.step, v.simple_value, event.wall_time) for v in event.summary.value
            ]
    return found


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def expected(workdir):
    return {
        (name.replace("@", "_"), line["step"]): (value, line["time"])
        for line in lines(workdir)
        for name, value in line.items()
        if name not in ("step", "time")
    }


def holds(workdir):
    found = scalars(workdir / "tensorboard")
    wanted = expected(workdir)
    assert len(found) == len(wanted) > 0  # nothing twice
    for tag, step, value, at in found:
        assert value == pytest.approx(wanted[tag, step][0], rel=1e-6)
        assert at == pytest.approx(wanted[tag, step][1], abs=1e-3)


def test_event_files_hold_every_figure_once(tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    command = ["train", *SMALL, "--log.tensorboard=true", f"--workdir={workdir}"]
    # stopped after its second epoch, with figures written that the continuation makes again
    real = json_files.append_line

    def append(path, line):
        real(path, line)
        if line["epoch"] == 3.0:
            raise KeyboardInterrupt

    monkeypatch.setattr(json_files, "append_line", append)
    assert cli.main([*command, "--train.num-epochs=5"]) == 130
    holds_two = {step for _, step, _, _ in scalars(workdir / "tensorboard")}
    monkeypatch.undo()
    with (workdir / "metrics.jsonl").open("a") as file:  # as if a kill came after further lines
        for line in lines(workdir)[-1:]:
            file.write(json.dumps(line | {"step": line["step"] + 1}) + "\n")
    monkeypatch.setenv("JAXREC_REPORT", "0")
    assert cli.main([*command, "--train.num-epochs=5"]) == 0
    assert len(holds_two) == 2 and len(lines(workdir)) == 5
    holds(workdir)
    tags = {tag for tag, *_ in scalars(workdir / "tensorboard")}
    assert {"loss", "valid/recall_20", "examples_per_second", "epoch"} <= tags


def test_nothing_is_written_unless_asked(tmp_path):
    workdir = tmp_path / "run"
    assert cli.main(["train", *SMALL, "--train.num-epochs=1", f"--workdir={workdir}"]) == 0
    assert not (workdir / "tensorboard").exists() and not (workdir / "wandb-run").exists()
    # the log is no setting of the model: the finished run may be asked for again with it
    more = ["--train.num-epochs=1", "--log.tensorboard=true"]
    assert cli.main(["train", *SMALL, *more, f"--workdir={workdir}"]) == 0


def test_an_earlier_phase_has_event_files_of_its_own(tmp_path):
    flags = [flag for flag in SMALL if "width" not in flag and "quiet" not in flag][1:]
    flags += ["--backbone.train.batch-size=32", "--backbone.train.num-epochs=1"]
    experiment = config.preset("ddrm", "synthetic").experiment
    experiment = config.parse(experiment, [*flags, "--log.tensorboard=true"])
    pipeline.fit_backbone(runs.prepare("ddrm", experiment, "synthetic"), tmp_path)
    holds(tmp_path / "stages/backbone")


class FakeWandb(types.ModuleType):
    """What is used of the package, noting its calls."""

    def __init__(self):
        super().__init__("wandb")
        self.runs = []

    def init(self, **settings):
        run = types.SimpleNamespace(settings=settings, logged=[], finished=False)
        run.log = lambda figures, step: run.logged.append((step, figures))
        run.finish = lambda: setattr(run, "finished", True)
        self.runs.append(run)
        return run


def test_wandb_is_told_the_same_and_a_continued_run_stays_one(tmp_path, monkeypatch):
    fake = FakeWandb()
    fake.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    workdir = tmp_path / "run"
    command = ["train", *SMALL, "--log.wandb=shoes", f"--workdir={workdir}"]
    real = json_files.append_line

    def append(path, line):
        real(path, line)
        if line["epoch"] == 2.0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(json_files, "append_line", append)
        assert cli.main([*command, "--train.num-epochs=3"]) == 130
    assert cli.main([*command, "--train.num-epochs=3"]) == 0
    first, second = fake.runs
    assert first.finished and second.finished
    assert first.settings["id"] == second.settings["id"] and second.settings["resume"] == "allow"
    assert second.settings["project"] == "shoes"
    assert second.settings["config"]["model"]["width"] == 8
    written = lines(workdir)  # the second line was cut off from its telling
    for run, line in (first, written[0]), (second, written[2]):
        wanted = {k: v for k, v in line.items() if k not in ("step", "time")}
        assert run.logged == [(line["step"], wanted)]


@pytest.mark.parametrize(
    ("flag", "module"), [("--log.tensorboard=true", "tensorboardX"), ("--log.wandb=x", "wandb")]
)
def test_a_missing_package_is_one_sentence(flag, module, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    find = tracking.importlib.util.find_spec
    monkeypatch.setattr(
        tracking.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    for command in ["train"], ["tune", "--trials=1"]:
        assert cli.main([*command, *SMALL, flag]) == 2
        said = capsys.readouterr()
        assert f"needs {module}" in said.err and said.err.count("\n") == 1 and said.out == ""
    assert not list(tmp_path.iterdir())
