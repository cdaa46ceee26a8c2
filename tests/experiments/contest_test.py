"""A contest whose jobs are small programs: what is done, left, shared and said."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from jaxrec_diff.experiments import contest, locks, signals

FAKE = """
import json, pathlib, sys, time
words = dict(word[2:].split("=", 1) for word in sys.argv[2:] if "=" in word)
folder = pathlib.Path(words["workdir"])
if sys.argv[1] == "evaluate":
    of = pathlib.Path(words["workdir"]).name.rpartition("-seed")[0]
    pathlib.Path(words["output"]).write_text(json.dumps(words | {"model": of}))
    if "per-user" in words:
        pathlib.Path(words["per-user"]).touch()
    sys.exit(0)
folder.mkdir(parents=True, exist_ok=True)
if words["model"] in ("ldiffrec", "dreamrec"):
    print("error: this model is refused")
    sys.exit(2)
if words["model"] == "sasrec":
    time.sleep(60)
(folder / ("best.json" if sys.argv[1] == "tune" else "results.json")).write_text(json.dumps(words))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    monkeypatch.setattr(contest, "_CLI", (sys.executable, str(path)))
    monkeypatch.setattr(contest, "_WAIT", 0.05)


def made(tmp_path, *models, **settings):
    settings = {
        "seeds": 2,
        "budget": contest.Budget(),
        "controls": ("ease",),
        "flags": ("--devices=1",),
    } | settings
    return contest.Contest("clicks.csv", models, folder=tmp_path / "board", **settings)


def said(folder):
    return json.loads((folder / "results.json").read_text())


def test_every_model_is_trained_over_seeds_and_a_refusal_is_told(tmp_path, fake):
    lines, tables = [], []
    plan = made(tmp_path, "ldiffrec", "dimerec", "mf", seeds=2)
    found = contest.run(plan, log=lines.append, after=tables.append)
    # first seeds come first, and the classics as soon as there is a run to judge them like
    assert [line.removesuffix(": begun") for line in lines if "begun" in line] == [
        "ldiffrec seed 0", "dimerec seed 0", "dimerec serving", "ease classic", "mf seed 0",
        "mf serving", "dimerec seed 1", "mf seed 1",
    ]  # fmt: skip
    assert [folder.name for folder in found.done] == [
        "dimerec-seed0", "mf-seed0", "dimerec-seed1", "mf-seed1",
    ]  # fmt: skip
    assert [contest.model_of(folder) for folder in found.done] == ["dimerec", "mf"] * 2
    assert found.serving.keys() == {"dimerec", "mf"} and found.classics.keys() == {"ease"}
    assert found.failed.keys() == {"ldiffrec seed 0"} and found.left == ()  # no second try
    assert "this model is refused (exit code 2" in found.failed["ldiffrec seed 0"]
    first, second = said(found.done[0]), said(found.done[2])
    assert (first["seed"], second["seed"], first["devices"]) == ("0", "1", "1")
    assert "preset" not in second
    classic = json.loads(found.classics["ease"].read_text())
    assert classic["workdir"] == str(found.done[0]) and classic["eval.controls"] == "ease"
    assert "eval.control-trials" not in classic
    # what is left was told after every job
    assert len(tables) == 9 and "ease classic" in tables[0].left and "mf seed 0" in tables[4].left
    again = []
    assert contest.run(plan, log=again.append).done == found.done
    assert [line for line in again if "begun" in line] == ["ldiffrec seed 0: begun"]


def test_models_are_tuned_by_one_budget_and_take_what_was_found(tmp_path, fake):
    plan = made(tmp_path, "dimerec", "ldiffrec", seeds=1, budget=contest.budget("trials:7"))
    found = contest.run(plan, log=lambda text: None)
    tuned = tmp_path / "board" / "tune" / "dimerec"
    assert json.loads((tuned / "best.json").read_text())["trials"] == "7"
    run = said(found.done[0])
    assert run["preset"] == str(tuned / "best.json")
    assert json.loads(found.classics["ease"].read_text())["eval.control-trials"] == "7"
    assert found.failed.keys() == {"ldiffrec search"}


def test_what_a_diffusion_is_worth_is_asked_of_the_first_run_of_those_that_have_one(tmp_path, fake):
    plan = made(tmp_path, "dimerec", "mf", "ldiffrec", seeds=1, diffuses=True)
    found = contest.run(plan, log=lambda text: None)
    assert [folder.name for folder in found.done] == ["dimerec-seed0", "mf-seed0"]
    assert found.diffusions.keys() == {"dimerec"}
    asked = json.loads(found.diffusions["dimerec"].read_text())
    assert asked["workdir"] == str(found.done[0]) and asked["eval.diffuses"] == "true"
    assert found.failed.keys() == {"ldiffrec seed 0"} and found.left == ()
    # it may be asked later, of runs that are there
    before = contest.run(made(tmp_path, "dimerec", seeds=1), log=lambda text: None)
    assert before.diffusions == {}


def test_classics_read_what_the_model_reads_that_reads_most(tmp_path, fake):
    """Of a model of users' rows they would see less, so they wait for one of histories."""
    lines: list[str] = []
    plan = made(tmp_path, "mf", "ldiffrec", "dimerec", seeds=1)
    first = contest.run(made(tmp_path, "mf", seeds=1), log=lambda text: None)
    classic = first.classics["ease"]
    assert json.loads(classic.read_text())["model"] == "mf"  # there is no other
    assert "ease" not in contest.outcome(plan, {}).classics  # judged beside less than there is
    found = contest.run(plan, log=lines.append)
    assert json.loads(found.classics["ease"].read_text())["model"] == "dimerec"
    begun = [line.removesuffix(": begun") for line in lines if "begun" in line]
    assert begun.index("ease classic") > begun.index("dimerec seed 0")
    # where no model of histories could be run, one of rows does
    # diffrec reads the history of a row behind a cut in time, mf the users it was trained on
    for split, beside in (("leave_one_out", "mf"), ("global_time", "diffrec")):
        alone = made(
            tmp_path / split, "mf", "diffrec", "ldiffrec", "dreamrec", seeds=1,
            flags=(f"--data.split={split}",),
        )  # fmt: skip
        rows = contest.run(alone, log=lambda text: None)
        assert json.loads(rows.classics["ease"].read_text())["model"] == beside


def test_an_order_is_shuffled_of_runs_alone_and_of_models_that_read_one(tmp_path, fake):
    plan = made(
        tmp_path, "dimerec", "mf", seeds=1, budget=contest.budget("trials:7"),
        flags=("--eval.shuffles=3", "--devices=1"),
    )  # fmt: skip
    found = contest.run(plan, log=lambda text: None)
    asked = {contest.model_of(folder): said(folder).get("eval.shuffles") for folder in found.done}
    assert asked == {"dimerec": "3", "mf": None}
    for model in ("dimerec", "mf"):
        tuned = json.loads((tmp_path / "board" / "tune" / model / "best.json").read_text())
        assert "eval.shuffles" not in tuned and tuned["devices"] == "1"


def test_seeds_and_models_may_be_added_but_a_contest_stays_the_same(tmp_path, fake):
    contest.run(made(tmp_path, "mf", seeds=1), log=lambda text: None)
    more = contest.run(made(tmp_path, "mf", "dimerec", seeds=2), log=lambda text: None)
    assert len(more.done) == 4
    with pytest.raises(ValueError, match="as they are, not 5 trials each; take another"):
        contest.run(made(tmp_path, "mf", budget=contest.Budget(5)))
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "contest.json.partial").touch()  # as a kill leaves it
    assert contest.run(made(tmp_path / "begun", "mf", seeds=1), log=lambda text: None).done
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not empty and holds no contest"):
        contest.run(made(tmp_path, "mf")._replace(folder=tmp_path / "other"))


def test_a_job_that_somebody_else_does_is_waited_for(tmp_path, fake):
    plan = made(tmp_path, "dimerec", "mf", seeds=1)
    contest.open_folder(plan)
    job = next(contest.jobs(plan, {}))
    taken = threading.Event()

    def other():
        with locks.writer(contest._own(plan, job)):
            taken.set()
            time.sleep(0.5)
            job.folder.mkdir(parents=True)
            (job.folder / "results.json").write_text('{"by": "another"}')

    thread = threading.Thread(target=other)
    thread.start()
    taken.wait()
    found = contest.run(plan, log=lambda text: None)
    thread.join()
    assert [folder.name for folder in found.done] == ["dimerec-seed0", "mf-seed0"]
    assert said(found.done[0]) == {"by": "another"}


def test_a_signal_stops_the_job_and_the_contest(tmp_path, fake):
    plan, begun = made(tmp_path, "mf", "sasrec", seeds=1), time.monotonic()

    def stop(text):
        if text == "sasrec seed 0: begun":  # before any classic or further seed
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

    with pytest.raises(signals.Interrupted, match="the same command goes on from") as caught:
        contest.run(plan, log=stop)
    assert caught.value.signum == signal.SIGTERM and time.monotonic() - begun < 20
    assert (tmp_path / "board" / "runs" / "mf-seed0" / "results.json").exists()


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("dimerek", {}, "dimerek.*dimerec"),
        ("mf", {"controls": ("ease", "slimm")}, "'slimm'; did you mean 'slim'"),
        ("mf", {"flags": ("--data.split=leave",)}, "cannot be 'leave'; it is one of leave_one_out"),
        ("mf", {"flags": ("--train.num-epoch=3",)}, "did you mean --train.num-epochs"),
        ("mf", {}, "clicks.csv does not exist"),
    ],
)
def test_what_nobody_knows_is_refused_before_any_training(tmp_path, model, settings, said):
    with pytest.raises(ValueError, match=said):
        contest.check(made(tmp_path, model, **settings))


def test_a_setting_of_some_models_is_left_to_their_runs(tmp_path):
    for flag in ("--model.num-steps=3", "--eval.ks=5,10"):  # sasrec is chosen by hr@20
        plan = made(tmp_path, "bert4rec", "sasrec", flags=(flag,))
        contest.check(plan._replace(data="synthetic"))


def test_a_contest_that_is_there_is_told_without_its_data(tmp_path, fake):
    plan = made(tmp_path, "mf")
    contest.run(plan, log=lambda text: None)
    contest.check(plan)  # no clicks.csv is there


def test_minutes_are_a_budget_of_searches_and_of_classics(tmp_path, fake):
    plan = made(tmp_path, "mf", seeds=2, budget=contest.budget("90"))
    found = contest.run(plan, log=lambda text: None)
    tuned = json.loads((tmp_path / "board" / "tune" / "mf" / "best.json").read_text())
    classic = json.loads(found.classics["ease"].read_text())
    assert tuned["minutes"] == classic["eval.control-minutes"] == "90"
    assert tuned["trials"] == classic["eval.control-trials"] == "10000"
    assert all("preset" in said(folder) for folder in found.done) and len(found.done) == 2
    for number in (0, 3):
        (tmp_path / "board" / "tune" / "mf" / "trials" / f"{number:04d}").mkdir(parents=True)
    assert contest.outcome(plan, {}).trials == {"mf": 2}
    assert str(plan.budget) == "90 minutes each"


@pytest.mark.parametrize("text", ["0", "trials", "trials:x", "hours:3", "1.5", ""])
def test_other_budgets_are_refused(text):
    with pytest.raises(ValueError, match="--budget takes minutes"):
        contest.budget(text)
