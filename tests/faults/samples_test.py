"""A little of every kind of fault, for the ordinary run; the other files here have the rest."""

import random
from pathlib import Path

from tests.faults import changes_test, commands_test, disks_test, harness, inputs, jobs, kills_test
from tests.faults import workdirs_test as workdirs


def test_a_sample_of_faults(base):
    draw = random.Random(0)
    with harness.tally("a sample", 12) as counted:
        kills_test.kills("train mf", base, 1, counted)
        for name, way in (("config.json", "other_json"), ("config.json", "cut")):
            outcome, said = workdirs.hurt("recommend parquet", base, Path(name), way, draw)
            counted.add(outcome, f"{way} of {name}", said)
        disks_test.injected("convert", base, counted, 2)
        changes_test.two_at_once("convert", base, counted, 2)
        commands_test.damaged_files("convert", base, counted, 5)


def test_a_sample_of_inputs():
    with harness.tally("a sample of inputs", 100) as counted:
        assert inputs.watched(dict.fromkeys(inputs.FAMILIES, 20), counted) > 50


def test_what_a_fault_is_judged_by(base):
    """The harness itself: it sees a traceback, a hang, another result and a stray."""
    done = jobs.undisturbed("convert", base)
    folder = jobs.place(base, done.given)
    argv = jobs.JOBS["convert"].argv(folder)
    waits = harness.Fault("wait", at=1, after=60.0)
    assert harness.run(argv, folder, waits, limit=1.0).hung
    assert harness.run(argv, folder, harness.Fault("kill", at=1)).code == -9
    full = harness.run(argv, folder, harness.Fault("full", at=1))
    assert full.refused and not full.traceback, full.said
    broken = harness.Ended(1, "Traceback (most recent call last):\n  x", False, 0)
    assert broken.traceback and not broken.refused
    assert harness.Ended(-11, "", False, 0).traceback
    jobs.write_clicks(folder / "clicks.csv", seed=8)
    assert harness.run(argv, folder).code == 0
    assert jobs.JOBS["convert"].left(folder) != done.left
