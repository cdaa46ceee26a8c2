"""Every file of a workdir is damaged in every way: it is said, or it changes nothing."""

import random
import shutil
from pathlib import Path

import pytest

from tests.faults import damage, harness, jobs
from tests.faults.child import Fault

# What reads a workdir, with the share of damages that it is given: a finished run, and for
# "train on" one that was killed on the way.
READERS = {
    "evaluate": 0.25,
    "recommend parquet": 0.1,
    "train again": 0.1,
    "train on": 0.05,
    "report": 0.01,
}
JOBS = jobs.JOBS | {
    "report": jobs.Job(jobs.asking("report"), lambda folder: (folder / "run/report.html").exists())
}


def half_done(base: Path) -> Path:
    """A folder whose training was killed after some checkpoints."""
    folder = base / "half"
    if not folder.exists():
        done = jobs.undisturbed("train mf", base)
        here = jobs.place(base, done.given)
        at = done.operations * 6 // 10
        assert harness.run(jobs.JOBS["train mf"].argv(here), here, Fault("kill", at)).code < 0
        assert list((here / "run" / "checkpoints").glob("*/commit_success.txt"))
        shutil.copytree(here, folder)
    return folder


def files_of(workdir: Path) -> list[Path]:
    """Of two checkpoints that say the same, those of both; every other file once."""
    return sorted(p.relative_to(workdir) for p in workdir.rglob("*") if p.is_file())


def hurt(reader: str, base: Path, name: Path, way: str, draw: random.Random) -> tuple[str, str]:
    """(outcome, what was said) of a command on a workdir with one damaged file."""
    done = jobs.undisturbed("train mf", base)
    folder = jobs.place(base, half_done(base) if reader == "train on" else done.folder)
    damage.WAYS[way](folder / "run" / name, draw)
    if reader.startswith("train"):
        job, truth = jobs.JOBS["train mf"], done.left
    elif reader == "report":
        job, truth = JOBS["report"], True
    else:
        job, truth = jobs.JOBS[reader], jobs.undisturbed(reader, base).left
    ended = harness.run(job.argv(folder), folder)
    left = jobs.results if reader.startswith("train") else job.left
    truth = truth[0] if reader.startswith("train") else truth
    # a digit that turns into another one within a json text is seen by nobody where it has no seal
    plain = name.suffix == ".json" and name.parent == Path(".") and name.name != "results.json"
    unseen = way == "flip" and plain
    return judge(left, truth, folder, ended, name, unseen), ended.said


def judge(left, truth, folder: Path, ended: harness.Ended, name: Path, unseen: bool) -> str:
    if ended.hung:
        return "hangs"
    if ended.traceback:
        return "tracebacks"
    if ended.code != 0:
        # one sentence that names the file, or the checkpoint or folder that it is a part of
        return "held" if ended.refused and said_where(ended.said, name) else "lost"
    told = unseen or "damaged" in ended.said
    return "held" if told or left(folder) == truth else "silent"


def said_where(said: str, name: Path) -> bool:
    flat = " ".join(said.split())
    return name.name in flat or name.parts[0] in flat


def damages(reader: str, base: Path, counted: harness.Tally) -> None:
    draw = random.Random(f"{harness.SEED} workdirs {reader}")
    done = jobs.undisturbed("train mf", base)
    source = half_done(base) if reader == "train on" else done.folder
    cases = [(name, way) for name in files_of(source / "run") for way in damage.WAYS]
    for name, way in draw.sample(cases, int(READERS[reader] * len(cases))):
        outcome, said = hurt(reader, base, name, way, draw)
        counted.add(outcome, f"{reader}, {way} of {name}", said)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("reader", READERS)
def test_all_damage_is_said(reader, base):
    with harness.tally(f"damaged workdirs: {reader}") as counted:
        damages(reader, base, counted)
