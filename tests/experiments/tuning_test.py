"""The search for settings: spaces of presets, trials that stop, go on and are shared."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.config import choice
from jaxrec_diff.config.space import Choice, Range, text
from jaxrec_diff.experiments import exports, judging, pipeline

optuna = pytest.importorskip("optuna")
from jaxrec_diff.experiments import tuning  # noqa: E402

SMALL = [
    "--devices=1", "--data.synthetic.num-users=60", "--data.synthetic.num-items=40",
    "--data.synthetic.num-interests=4", "--data.synthetic.max-length=8", "--data.max-len=6",
    "--train.batch-size=32", "--eval.batch-size=64", "--train.num-epochs=3", "--model.width=8",
]  # fmt: skip
ROOT = Path(__file__).parents[2]


def ends(where: Range | Choice) -> tuple:
    return where.values if isinstance(where, Choice) else (where.low, where.high)


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_declares_a_space_of_settings_that_it_takes(name):
    space = config.search_space(name)
    bases = [
        config.preset(name, d).experiment for d in ("synthetic", "amazon-beauty", "ml-1m-clean")
    ]
    for base in bases[:1] + [other for other in bases[1:] if other != bases[0]]:
        for k in range(max(len(ends(where)) for where in space.values())):
            values = {
                field: ends(where)[min(k, len(ends(where)) - 1)] for field, where in space.items()
            }
            got = config.parse(base, [f"--{f}={text(value)}" for f, value in values.items()])
            for field, value in values.items():
                found = got
                for part in field.replace("-", "_").split("."):
                    found = getattr(found, part)
                assert found == value and type(found) is type(value)
    # the widest values leave the table on a terminal of 80 columns
    settings = {k: max(map(_as_stored, ends(v)), key=_width) for k, v in space.items()}
    settings |= {k: 1.2345e-5 for k, v in space.items() if isinstance(v, Range) and v.log}
    row = {"trial": 1000, "state": "complete", "score": 0.1, "epochs": 1000, "settings": settings}
    lines = tuning.table({"trials": [row], "metric": "valid/recall@20"}).splitlines()
    assert max(map(len, lines)) <= 80


def _as_stored(value):
    return text(value) if isinstance(value, tuple) else value


def _width(value):
    return len(f"{value:.3g}" if isinstance(value, float) else str(value))


@pytest.mark.parametrize("make", [
    lambda: Range(1.0, 1.0), lambda: Range(0.0, 1.0, log=True), lambda: Choice((1, 1)),
])  # fmt: skip
def test_spaces_without_room_are_refused(make):
    with pytest.raises(ValueError, match="got"):
        make()


def planned(workdir, *, fixed=("model.width",), flags=()):
    experiment = config.parse(config.preset("mf", "synthetic").experiment, [*SMALL, *flags])
    return tuning.plan("mf", experiment, "synthetic", workdir, fixed=fixed)


def fake_fit(score_of, epochs=6):
    """Training whose validation score is a function of (learning rate, epoch)."""

    def fit(run, folder, *, log, on_progress):
        from jaxrec_diff.training import loop
        from jaxrec_diff.training import progress as training_progress

        folder.mkdir(parents=True, exist_ok=True)
        rate, scores = run.experiment.train.learning_rate, []
        for epoch in range(1, epochs + 1):
            scores.append(score_of(rate, epoch))
            metrics = {f"valid/{run.experiment.eval.metric}": scores[-1]}
            on_progress(
                training_progress.Progress("epoch", epoch, epochs, float(epoch), 1.0, metrics)
            )
        return loop.Fit(None, epochs, max(scores), epochs, 1.0, 1.0, 1.0, 1.0)

    return fit


def near(rate, epoch):
    return epoch / 10 - abs(math.log10(rate) + 3)


def outcome(study):
    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return [(t.state.name, t.value, t.params) for t in study.get_trials(states=done)]


def test_a_search_in_parts_is_the_search_in_one_go(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", fake_fit(near))
    whole = tuning.tune(planned(tmp_path / "whole"), 14, log=lambda _: None)
    for trials in (3, 8, 14, 14):
        parts = tuning.tune(planned(tmp_path / "parts"), trials, log=lambda _: None)
        assert len(outcome(parts)) == trials
    assert outcome(parts) == outcome(whole)
    rates = [params["train.learning-rate"] for _, _, params in outcome(whole)]
    assert len(set(rates)) == 14
    other = tuning.tune(planned(tmp_path / "other", flags=["--seed=1"]), 3, log=lambda _: None)
    assert outcome(other)[0] != outcome(whole)[0]


def test_a_search_ends_when_its_time_is_spent(tmp_path, monkeypatch):
    def fit(*args, **kwargs):
        time.sleep(0.05)
        return fake_fit(near)(*args, **kwargs)

    monkeypatch.setattr(pipeline, "fit", fit)
    minutes = 0.2 / 60
    study = tuning.tune(planned(tmp_path), 50, minutes=minutes, log=lambda _: None)
    took = [trial.duration.total_seconds() for trial in study.get_trials()]
    assert sum(took) >= 0.2 > sum(took[:-1]) and tuning.spent(study) == pytest.approx(sum(took))
    again = tuning.tune(planned(tmp_path), 50, minutes=minutes, log=lambda _: None)
    assert len(again.get_trials()) == len(took)  # also of what was spent before
    assert len(tuning.tune(planned(tmp_path), 50, minutes=1.0, log=lambda _: None).trials) == 50


def test_trials_behind_the_median_are_pruned_and_the_best_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", fake_fit(near))
    chosen, said = planned(tmp_path), []
    study = tuning.tune(chosen, 12, log=said.append)
    trials = study.get_trials()
    pruned = [t for t in trials if t.state == optuna.trial.TrialState.PRUNED]
    assert pruned and all(t.number >= 4 and max(t.intermediate_values) < 6 for t in pruned)
    for trial in pruned:  # an oracle of the rule: behind the median of those before, at that epoch
        last = max(trial.intermediate_values)
        before = sorted(
            t.intermediate_values[last]
            for t in trials[: trial.number]
            if last in t.intermediate_values and t.state == optuna.trial.TrialState.COMPLETE
        )
        middle = len(before) // 2
        median = before[middle] if len(before) % 2 else sum(before[middle - 1 : middle + 1]) / 2
        assert trial.intermediate_values[last] < median and last >= 2
    best = max((t for t in trials if t not in pruned), key=lambda t: t.value)
    found = choice.read(tuning.best_path(tmp_path)).settings.experiment
    assert found.train.learning_rate == best.params["train.learning-rate"]
    assert found.model.l2 == best.params["model.l2"] and found.model.width == 8
    shown = tuning.summary(study, chosen)
    assert shown["trials"][0]["trial"] == best.number and len(shown["trials"]) == 12
    assert max(map(len, tuning.table(shown).splitlines())) <= 80


def test_losses_and_settings_that_cannot_be_are_pruned(tmp_path, monkeypatch):
    from jaxrec_diff.training import progress as training_progress

    monkeypatch.setattr(config, "search_space", lambda _: {
        "model.l2": Choice((-1.0, 1e-4)), "train.learning-rate": Range(1e-4, 1.0, log=True)
    })  # fmt: skip
    good = fake_fit(near)

    def fit(run, folder, **how):
        if run.experiment.train.learning_rate > 1e-2:
            raise training_progress.NonFiniteLoss(3, None)
        return good(run, folder, **how)

    monkeypatch.setattr(pipeline, "fit", fit)
    study = tuning.tune(planned(tmp_path), 12, log=lambda _: None)
    assert len(outcome(study)) == 12
    for trial in study.get_trials():
        bad = trial.params["model.l2"] < 0 or trial.params["train.learning-rate"] > 1e-2
        why = trial.user_attrs.get("why", "")
        assert bad == ("l2" in why or "not finite" in why)


def test_other_searches_and_folders_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "fit", fake_fit(near))
    tuning.tune(planned(tmp_path / "one"), 1, log=lambda _: None)
    planned(tmp_path / "one", flags=["--eval.seeds=2", "--eval.track-test=true"])
    with pytest.raises(ValueError, match=r"train.patience: 5 there, 7 here"):
        planned(tmp_path / "one", flags=["--train.patience=7"])
    with pytest.raises(ValueError, match=r"space.model.l2"):
        planned(tmp_path / "one", fixed=("model.width", "model.l2"))
    with pytest.raises(ValueError, match="every field"):
        planned(tmp_path / "two", fixed=("model.width", "model.l2", "train.learning-rate"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    with pytest.raises(ValueError, match="not empty"):
        planned(tmp_path / "full")
    assert not (tmp_path / "two").exists()


def test_the_test_split_is_not_looked_at_and_the_preset_trains_the_same(
    tmp_path, monkeypatch, capsys
):
    seen = []
    real = judging.split_of  # whatever is evaluated comes from here

    def split_of(phase, split, rules):
        seen.append(split)
        return real(phase, split, rules)

    monkeypatch.setattr(judging, "split_of", split_of)
    flags = ["--model=mf", *SMALL, "--eval.track-test=true"]
    folder = tmp_path / "search"
    assert cli.main(["tune", *flags, f"--workdir={folder}", "--trials=2", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert set(seen) == {"valid"}
    assert "test/" not in "".join(p.read_text() for p in folder.glob("trials/*/metrics.jsonl"))
    assert found["trials"][0]["score"] >= found["trials"][1]["score"] and not found["trials"][2:]
    assert not list(folder.glob("trials/*/checkpoints"))

    preset, run = found["preset"], tmp_path / "run"
    command = ["train", "--model=mf", f"--preset={preset}", f"--workdir={run}", "--quiet"]
    assert cli.main(command) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["best_valid"] == pytest.approx(found["trials"][0]["score"], abs=0)
    best = folder / "trials" / f"{found['trials'][0]['trial']:04d}" / "config.json"
    assert json.loads((run / "config.json").read_text()) == json.loads(best.read_text())
    assert cli.main(["train", "--model=dimerec", f"--preset={preset}"]) == 2
    assert "settings of mf, not of dimerec" in capsys.readouterr().err


def start(workdir, *flags) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "jaxrec_diff.cli", "tune", "--model=mf", *SMALL[:-2], SMALL[-1],
         f"--workdir={workdir}", *flags],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_trial_goes_on_in_its_folder(tmp_path, capsys):
    folder, epochs = tmp_path / "killed", "--train.num-epochs=400"
    flags = [epochs, "--train.patience=0", "--train.eval-every=20", "--trials=1"]
    process = start(folder, *flags)
    log = folder / "trials/0000/metrics.jsonl"
    until = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 2) and time.monotonic() < until:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = log.read_text().count("\n")
    assert 2 <= done < 20, "the kill came too late to prove anything"

    def command(workdir):
        return ["tune", "--model=mf", *SMALL[:-2], SMALL[-1], f"--workdir={workdir}", *flags]

    assert cli.main(command(folder)) == 0
    assert "resumed" in capsys.readouterr().out
    assert cli.main(command(tmp_path / "whole")) == 0
    whole = tmp_path / "whole/trials/0000/metrics.jsonl"
    kept = [[json.loads(line) for line in path.read_text().splitlines()] for path in (log, whole)]
    for lines in kept:
        for line in lines:
            del line["time"], line["examples_per_second"]
    assert kept[0] == kept[1] and len(kept[0]) == 20
    assert not (folder / "trials/0001").exists()
    assert (folder / "best.json").read_text() == (tmp_path / "whole/best.json").read_text()


def test_two_processes_share_a_search(tmp_path):
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "tests" / "experiments")!r})
import tuning_test as t
real = t.fake_fit(t.near, epochs=2)
def slow(*args, **named):
    time.sleep(0.3)
    return real(*args, **named)
t.pipeline.fit = slow
t.tuning.tune(t.planned(t.Path({str(tmp_path)!r})), 8, log=print)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=ROOT, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    study = tuning.tune(planned(tmp_path), 8, log=lambda _: None)
    done = outcome(study)
    assert len(done) == 8 == len(study.get_trials())
    assert len({params["train.learning-rate"] for _, _, params in done}) == 8
    starts = [out.count("train.learning-rate=") for out, _ in said]
    assert sum(starts) == 8 and min(starts) > 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name a model"),
        (["--model=nf"], "unknown model"),
        (["--model=mf", "--trials=0"], "at least 1"),
        (["--model=mf", "--model.l3=1"], "unknown flag"),
        (["--model=mf", "--preset=no.json"], "no.json does not exist"),
        (["--model=mf", "--data=no.csv"], "does not exist"),
    ],
)
def test_refusals_are_one_line(flags, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["tune", *flags]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_trials_share_a_backbone(tmp_path, monkeypatch):
    import numpy as np

    flags = [flag for flag in SMALL if "width" not in flag and "epochs" not in flag]
    flags += ["--backbone.train.num-epochs=1", "--backbone.train.batch-size=32"]
    flags += ["--train.num-epochs=1", "--model.dims=8", "--model.num-steps=10"]
    experiment = config.parse(config.preset("ddrm", "synthetic").experiment, flags)
    arrays = []
    real = pipeline.fit

    def fit(run, folder, **how):
        with np.load(exports.path(folder, "backbone")) as stored:
            arrays.append(stored["items"])
        return real(run, folder, **how)

    monkeypatch.setattr(pipeline, "fit", fit)
    said = []
    fixed = ("model.num-steps", "model.layers")
    chosen = tuning.plan("ddrm", experiment, "synthetic", tmp_path, fixed=fixed)
    study = tuning.tune(chosen, 2, log=said.append)
    assert [state for state, _, _ in outcome(study)] == ["COMPLETE"] * 2
    assert sum("first lightgcn" in line for line in said) == 1
    assert len(arrays) == 2 and np.array_equal(*arrays) and arrays[0].std() > 0
    # the backbone's epoch, which the first trial trained, is no epoch of the trial
    assert all(set(trial.intermediate_values) == {1} for trial in study.get_trials())


def test_a_trial_that_is_ended_leaves_a_whole_folder(tmp_path):
    run = planned(tmp_path / "search").run

    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 2.0:
            raise optuna.TrialPruned

    with pytest.raises(optuna.TrialPruned):
        pipeline.fit(run, tmp_path / "ended", on_progress=stop)
    ended = pipeline.fit(run, tmp_path / "ended")  # from the second epoch
    whole = pipeline.fit(run, tmp_path / "whole")
    assert (ended.steps, ended.best_step, ended.best_score) == (
        whole.steps, whole.best_step, whole.best_score,
    )  # fmt: skip
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("ended", "whole")]
    kept = [[json.loads(line) for line in log.splitlines()] for log in logs]
    assert [line["epoch"] for line in kept[0]] == [1.0, 2.0, 3.0]
    for one, other in zip(*kept, strict=True):
        assert one["loss"] == other["loss"] and one["valid/hr@10"] == other["valid/hr@10"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("name", "own", "metric"),
    [("diffuasr", "loss", "hr@20"), ("ddrm", "recall@20", "recall@20")],
)
def test_trials_are_judged_by_what_is_trained_last(name, own, metric, tmp_path):
    flags = [flag for flag in SMALL if "width" not in flag] + ["--backbone.train.batch-size=32"]
    flags += ["--data.prefix-len=2"] if name == "diffuasr" else []
    experiment = config.parse(config.preset(name, "synthetic").experiment, flags)
    chosen = tuning.plan(name, experiment, "synthetic", tmp_path)
    assert experiment.eval.metric == own
    assert tuning.summary(optuna.create_study(), chosen)["metric"] == f"valid/{metric}"


def test_a_search_that_was_hardly_begun_is_begun_again(tmp_path):
    """By a process that was killed, or by one that is about to write what is searched."""
    workdir = tmp_path / "search"
    workdir.mkdir()
    for name in ("lock", "search.json.partial"):
        (workdir / name).touch()
        tuning._open(planned(workdir))
        (workdir / "search.json").unlink()
        for other in ("journal.log", "trials"):
            with pytest.raises(ValueError, match="is not empty and holds no search"):
                planned(workdir)
            path = workdir / other
            path.rmdir() if path.is_dir() else path.unlink()
        planned(workdir)


def test_a_search_of_before_a_setting_existed_goes_on(tmp_path):
    workdir = tmp_path / "search"
    tuning._open(planned(workdir))
    path = workdir / "search.json"
    kept = json.loads(path.read_text())
    del kept["data"]["min_train"]
    path.write_text(json.dumps(kept))
    planned(workdir)
    with pytest.raises(ValueError, match="holds a search with data.min_train: 2 there, 3 here"):
        planned(workdir, flags=["--data.min-train=3"])


def test_a_damaged_journal_is_one_sentence(tmp_path, capsys):
    workdir = tmp_path / "search"
    chosen = config.parse(config.preset("mf", "synthetic").experiment, SMALL)
    planned = tuning.plan("mf", chosen, "synthetic", workdir, fixed=config.given(SMALL))
    study = tuning._open(planned)
    for _ in range(3):
        study.tell(study.ask(), 0.5)
    journal = workdir / "journal.log"
    lines = journal.read_text().splitlines()
    assert len(lines) > 4
    said = f"{journal} is damaged and its trials are lost; take another workdir"
    for damaged in (
        ["\0\1junk", *lines[1:]],
        ["[1]", *lines],
        ['{"op_code": 1}', *lines],
        [line.replace('"study_name"', '"study_mane"') for line in lines],
    ):
        journal.write_text("\n".join(damaged) + "\n")
        before = journal.read_bytes()
        with pytest.raises(ValueError, match=re.escape(said)):
            tuning.tune(planned, 1)
        assert journal.read_bytes() == before
    assert cli.main(["tune", "--model=mf", f"--workdir={workdir}", "--trials=1", *SMALL]) == 2
    assert capsys.readouterr().err == f"error: {said}\n"
