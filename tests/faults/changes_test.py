"""What changes under a command: its data, its workdir, the clock, another run beside it."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults import harness, jobs
from tests.faults.child import Fault

TRAINED = ("train mf", "train ddrm")


def ended_well(ended: harness.Ended) -> str:
    """The outcome where a command did not end with 0 or a sentence, else nothing."""
    if ended.hung:
        return "hangs"
    if ended.traceback:
        return "tracebacks"
    return "" if ended.code == 0 or ended.refused else "lost"


# Data ------------------------------------------------------------------------------------------


def other_data(path: Path) -> None:
    jobs.write_clicks(path, seed=8)


def replaced(path: Path) -> None:
    jobs.write_clicks(path.with_name("new.csv"), seed=8).replace(path)


def emptied(path: Path) -> None:
    path.write_text("")


CHANGES = {
    "overwritten": other_data,
    "replaced": replaced,
    "emptied": emptied,
    "deleted": Path.unlink,
}


def data_changes(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """The data changes at a random moment; it is put back, and the command is given again."""
    draw = random.Random(f"{harness.SEED} data {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    folder = jobs.place(base, done.given)
    other_data(folder / "clicks.csv")
    assert harness.run(job.argv(folder), folder).code == 0
    of_other = job.left(folder)
    for _ in range(count):
        folder = jobs.place(base, done.given)
        word = draw.choice(list(CHANGES))
        after, killed = draw.uniform(0.0, done.seconds), draw.random() < 0.5
        running = harness.Running(job.argv(folder), folder)
        time.sleep(after)
        CHANGES[word](folder / "clicks.csv")
        if killed:
            time.sleep(draw.uniform(0.0, 0.3))
            running.kill()
        first = running.wait()
        outcome, said = "", first.said
        if first.code >= 0:
            outcome = ended_well(first)
            if not outcome and first.code == 0 and job.left(folder) not in (done.left, of_other):
                outcome = "silent"
        begun = (folder / "run" / "config.json").exists()
        second = harness.run(job.argv(folder), folder)  # on the changed data
        said += "\n-- on changed data:\n" + second.said
        outcome = outcome or ended_well(second)
        if not outcome and second.code == 0 and job.left(folder) != of_other:
            outcome = "silent"
        shutil.copy(done.given / "clicks.csv", folder / "clicks.csv")
        third = harness.run(job.argv(folder), folder)
        said += "\n-- on the data as they were:\n" + third.said
        outcome = outcome or ended_well(third)
        if not outcome and third.code == 0 and job.left(folder) != done.left:
            outcome = "silent"
        # a run that was begun on other data is refused, and stays as it is
        if not outcome and third.code != 0 and not (begun or second.code == 0):
            outcome = "lost"
        counted.add(outcome or "held", f"{name}: {word} after {after:.2f} s, killed {killed}", said)


def workdir_vanishes(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """The workdir, or a part of it, is deleted under a run."""
    draw = random.Random(f"{harness.SEED} vanishing {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    for _ in range(count):
        folder = jobs.place(base, done.given)
        part = draw.choice((".", "checkpoints", "config.json", "metrics.jsonl", "vocab.npz"))
        running = harness.Running(job.argv(folder), folder)
        while running.running() and not (folder / "run" / part).exists():
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.5))
        gone = folder / "run" / part
        shutil.rmtree(gone, ignore_errors=True) if gone.is_dir() else gone.unlink(missing_ok=True)
        first = running.wait()
        outcome, said = ended_well(first), first.said
        second = harness.run(job.argv(folder), folder)
        said += "\n-- again:\n" + second.said
        outcome = outcome or ended_well(second)
        counted.add(outcome or "held", f"{name}: {part} deleted", said)


# Clocks ----------------------------------------------------------------------------------------


def clock_jumps(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """The clock jumps while a command runs, and files look older or newer than they are."""
    draw = random.Random(f"{harness.SEED} clocks {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    for _ in range(count):
        folder = jobs.place(base, done.given)
        jump = draw.choice((-3e8, -3600.0, 3600.0, 3e8))
        first = harness.run(
            job.argv(folder), folder, Fault("clock", draw.randint(1, done.operations), jump=jump)
        )
        outcome, said = ended_well(first), first.said
        if not outcome and (first.code != 0 or job.left(folder) != done.left):
            outcome = "silent"
        counted.add(outcome or "held", f"{name}: the clock jumps by {jump} s", said)
        folder = jobs.place(base, done.given)
        harness.run(job.argv(folder), folder, Fault("kill", draw.randint(1, done.operations)))
        for path in sorted(folder.rglob("*")):
            at = time.time() + draw.uniform(-1e9, 1e9)
            os.utime(path, (at, at))
        second = harness.run(job.argv(folder), folder)
        outcome = ended_well(second)
        if not outcome and (second.code != 0 or job.left(folder) != done.left):
            outcome = "silent" if second.code == 0 else "lost"
        counted.add(outcome or "held", f"{name}: killed, then files of any age", second.said)


# Two at once -----------------------------------------------------------------------------------


def two_at_once(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """The same command twice at once; sometimes one of them is killed."""
    draw = random.Random(f"{harness.SEED} two {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    for _ in range(count):
        folder = jobs.place(base, done.given)
        after, killed = (
            draw.uniform(0.0, done.seconds) * draw.choice((0.0, 0.2, 1.0)),
            draw.random() < 0.3,
        )
        one = harness.Running(job.argv(folder), folder)
        time.sleep(after)
        other = harness.Running(job.argv(folder), folder)
        if killed:
            time.sleep(draw.uniform(0.0, done.seconds))
            one.kill()
        both = [one.wait(), other.wait()]
        said = "\n-- and\n".join(each.said for each in both)
        living = both[killed:]
        outcome = next(filter(None, map(ended_well, living)), "")
        if not outcome and not killed and all(each.code != 0 for each in living):
            outcome = "lost"  # neither could
        if not outcome:
            again = harness.run(job.argv(folder), folder)
            said += "\n-- again:\n" + again.said
            outcome = ended_well(again)
            if not outcome and (name != "tune mf" and job.left(folder) != done.left):
                outcome = "silent"
        counted.add(outcome or "held", f"{name}: two, {after:.2f} s apart, killed {killed}", said)


# Signals ---------------------------------------------------------------------------------------


def signalled(name: str, base: Path, counted: harness.Tally, count: int, through_bin: bool) -> None:
    """SIGINT or SIGTERM at a random moment; the same command then goes on."""
    draw = random.Random(f"{harness.SEED} signals {name} {through_bin}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    for _ in range(count):
        folder = jobs.place(base, done.given)
        signum = draw.choice((signal.SIGINT, signal.SIGTERM))
        running = harness.Running(job.argv(folder), folder, through_bin=through_bin)
        time.sleep(draw.uniform(0.0, done.seconds + 2.0 * through_bin))
        running.kill(signum)
        first = running.wait()
        outcome, said = "", first.said
        if first.hung:
            outcome = "hangs"
        elif first.traceback:
            outcome = "tracebacks"
        elif first.code not in (0, -signum, 128 + signum):
            outcome = "lost"
        second = harness.run(job.argv(folder), folder)
        said += "\n-- again:\n" + second.said
        outcome = outcome or ended_well(second)
        if not outcome and second.code != 0:
            outcome = "lost"
        if not outcome and job.left(folder) != done.left:
            outcome = "silent"
        where = "bin/" if through_bin else ""
        counted.add(outcome or "held", f"{where}{name}: {signum.name}, code {first.code}", said)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", TRAINED)
def test_data_and_workdirs_that_change(name, base):
    with harness.tally(f"data changed: {name}") as counted:
        data_changes(name, base, counted, 3)
        workdir_vanishes(name, base, counted, 2)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", TRAINED)
def test_clocks_that_jump(name, base):
    with harness.tally(f"clocks: {name}") as counted:
        clock_jumps(name, base, counted, 2)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", [*TRAINED, "tune mf", "augment", "recommend csv", "export"])
def test_two_at_once(name, base):
    with harness.tally(f"two at once: {name}") as counted:
        two_at_once(name, base, counted, 3)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", [*TRAINED, "tune mf", "recommend csv"])
def test_signals(name, base):
    with harness.tally(f"signals: {name}") as counted:
        signalled(name, base, counted, 3, through_bin=False)
        signalled(name, base, counted, 1, through_bin=True)
