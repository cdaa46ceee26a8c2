"""Commands that are killed at random moments, and started again, end as if nothing had happened."""

import random
import time
from pathlib import Path

import pytest

from tests.faults import harness, jobs
from tests.faults.child import Fault

KILLED = [
    "train mf", "train dreamrec", "train ddrm", "tune mf", "recommend parquet", "recommend csv",
    "export", "augment", "evaluate", "convert",
]  # fmt: skip
TRAINED = ("train mf", "train dreamrec", "train ddrm")


def committed(workdir: Path) -> dict[str, int]:
    """The newest checkpoint of every folder of checkpoints that is whole."""
    steps: dict[str, int] = {}
    for path in workdir.rglob("commit_success.txt"):
        if path.parent.name.isdigit():
            phase = str(path.parent.parent)
            steps[phase] = max(steps.get(phase, 0), int(path.parent.name))
    return steps


def moment(done: jobs.Done, draw: random.Random) -> Fault | float:
    """Around a file operation, or at any time."""
    if draw.random() < 0.3:
        return draw.uniform(0.0, done.seconds)
    # every other one right before an operation, the rest while it or what follows is under way
    after = draw.choice([0.0, draw.uniform(1e-5, 0.02)])
    return Fault("kill", draw.randint(1, max(done.operations, 1)), after)


def kill_once(argv: list[str], folder: Path, when: Fault | float, through_bin: bool) -> bool:
    """Whether the command was still running when it was killed."""
    if isinstance(when, Fault) and not through_bin:
        return harness.run(argv, folder, when).code < 0
    seconds = when if isinstance(when, float) else 0.2 * when.at**0.5
    running = harness.Running(argv, folder, through_bin=through_bin)
    end = time.monotonic() + seconds
    while running.running() and time.monotonic() < end:
        time.sleep(0.002)
    running.kill()
    return running.wait().code < 0


def kills(name: str, base: Path, count: int, counted: harness.Tally, bins: int = 0) -> None:
    """Kills a command `count` times, up to three times in a row, each chain run to its end."""
    draw = random.Random(f"{harness.SEED} kills {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    left = count
    while left > 0:
        folder, chain = jobs.place(base, done.given), min(draw.randint(1, 3), left)
        argv = job.argv(folder)
        moments: list[str] = []
        while len(moments) < chain:
            when = moment(done, draw)
            through_bin = bins > 0
            bins -= through_bin
            if kill_once(argv, folder, when, through_bin):
                moments.append(f"{when}")
            else:  # it was over: again from the start
                folder, moments = jobs.place(base, done.given), []
        before = committed(folder / "run") if name in TRAINED else {}
        ended = harness.run(argv, folder)
        for number in range(chain):
            last = number == chain - 1  # the kills before it held: the last run could go on
            outcome = judge(name, job, done, folder, ended, before) if last else "held"
            counted.add(outcome, f"{name} killed: {', '.join(moments)}", ended.said)
        left -= chain


def judge(name, job, done, folder, ended, before) -> str:
    """How the run after a kill went."""
    if ended.hung:
        return "hangs"
    if ended.traceback:
        return "tracebacks"
    if ended.code != 0 and not ended.refused:
        return "lost"
    if ended.code != 0:  # an output that is whole is not written over
        try:
            return "held" if job.left(folder) == done.left else "lost"
        except OSError:
            return "lost"
    for phase, step in before.items():  # every phase under way goes on where it was
        finished = (Path(phase).parent / "export.npz").exists()
        if f"at step {step}" not in ended.said and not finished:
            return "lost"
    strays = [path for path in folder.rglob("*.partial*") if path.is_file()]
    strays += [path for path in folder.glob("*.parts")]
    if strays:
        ended_with = ", ".join(str(path) for path in strays)
        print(f"left behind: {ended_with}")  # pytest shows it with the failure
        return "lost"
    return "held" if job.left(folder) == done.left else "silent"


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", KILLED)
def test_many_kills_change_nothing(name, base):
    count = 8 if name in TRAINED else 4
    with harness.tally(f"kills: {name}", count) as counted:
        kills(name, base, count, counted, bins=1)
