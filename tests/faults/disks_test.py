"""Disks that fill or cannot be written: one sentence, and nothing that was there is lost."""

import os
import random
import subprocess
from pathlib import Path

import pytest

from tests.faults import harness, jobs
from tests.faults.child import Fault

WRITERS = [
    "train mf", "train ddrm", "tune mf", "recommend parquet", "recommend csv", "export", "augment",
    "evaluate", "convert",
]  # fmt: skip


def judge(name: str, done: jobs.Done, folder: Path, hurt: harness.Ended) -> tuple[str, str]:
    """How a command went on a bad disk, and again on a good one."""
    job = jobs.JOBS[name]
    if hurt.hung:
        return "hangs", hurt.said
    if hurt.traceback:
        return "tracebacks", hurt.said
    if hurt.code == 0 and job.left(folder) != done.left:
        return "silent", hurt.said
    if hurt.code != 0 and not hurt.refused:
        return "lost", hurt.said
    if hurt.code == 0:
        return "held", ""
    ended = harness.run(job.argv(folder), folder)
    said = f"{hurt.said}\n-- and on a good disk:\n{ended.said}"
    if ended.hung or ended.traceback or ended.code != 0:
        return "lost", said
    return ("held" if job.left(folder) == done.left else "silent"), said


def injected(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """Every write from a random one on fails."""
    draw = random.Random(f"{harness.SEED} disks {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    for _ in range(count):
        folder = jobs.place(base, done.given)
        kind = draw.choice(("full", "readonly"))
        fault = Fault(kind, draw.randint(1, max(done.operations, 1)))
        if draw.random() < 0.25:
            kind, fault = "limit", Fault(largest=draw.randint(8_192, 120_000))
        outcome, said = judge(name, done, folder, harness.run(job.argv(folder), folder, fault))
        counted.add(outcome, f"{name}: {fault}", said)


def mounted(where: Path, size: int) -> bool:
    """Whether a disk of so many bytes could be put at a place."""
    where.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(where)]
    return subprocess.run(command, capture_output=True).returncode == 0


def remount(where: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(where)], check=True)


def small_disk(name: str, base: Path, counted: harness.Tally, count: int) -> None:
    """A disk that is full in the middle, and is then given more room."""
    draw = random.Random(f"{harness.SEED} small disk {name}")
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    used = sum(p.stat().st_blocks * 512 for p in done.given.rglob("*"))
    left = sum(p.stat().st_blocks * 512 for p in done.folder.rglob("*"))
    for _ in range(count):
        folder = harness.fresh(base / "here")
        size = used + 8192 + draw.randrange(max(left - used, 4096))
        if not mounted(folder, 2**26):
            pytest.skip("no disk can be mounted here, which root may do")
        try:
            subprocess.run(["cp", "-r", f"{done.given}/.", str(folder)], check=True)
            remount(folder, f"size={size}")
            hurt = harness.run(job.argv(folder), folder)
            remount(folder, f"size={2**26}")
            outcome, said = judge(name, done, folder, hurt)
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        counted.add(outcome, f"{name} on a disk of {size:,} bytes", said)


def read_only(name: str, base: Path, counted: harness.Tally) -> None:
    """A disk that cannot be written, and then can."""
    done, job = jobs.undisturbed(name, base), jobs.JOBS[name]
    folder = harness.fresh(base / "here")
    if not mounted(folder, 2**26):
        pytest.skip("no disk can be mounted here, which root may do")
    try:
        subprocess.run(["cp", "-r", f"{done.given}/.", str(folder)], check=True)
        remount(folder, "ro")
        hurt = harness.run(job.argv(folder), folder)
        remount(folder, "rw")
        outcome, said = judge(name, done, folder, hurt)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    counted.add(outcome, f"{name} on a disk that is read only", said)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WRITERS)
def test_bad_disks(name, base):
    with harness.tally(f"disks: {name}") as counted:
        injected(name, base, counted, 5 if name.startswith("train") else 3)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("name", WRITERS)
def test_small_disks(name, base):
    with harness.tally(f"small disks: {name}") as counted:
        small_disk(name, base, counted, 2 if name.startswith("train") else 1)
        read_only(name, base, counted)
