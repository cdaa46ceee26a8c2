"""Many models on one data set: tuned with an equal budget, trained over seeds, told side by side.

The folder of a contest holds `contest.json` (what is compared), `tune/MODEL/` (a search each),
`runs/MODEL-seedN/` (a workdir each), `jobs/` (what each said), `diffusion/MODEL.json` where that is
asked, and the tables. Every job is a process of its own, so that its memory is free when it ends;
what is finished is known by its files, so the same call goes on after a kill, and several at once
share the jobs.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff import config
from jaxrec_diff.config.stored import SCHEMA, check_schema, read_json
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.experiments import json_files, locks, results, signals, workdirs

Log = Callable[[str], None]

_FILE = "contest.json"
_DIFFUSION = "diffusion"
_WAIT = 2.0  # seconds between looks at jobs that other processes do
_CLI = (sys.executable, "-P", "-m", "jaxrec_diff.cli")


class Contest(NamedTuple):
    """What is compared, and how."""

    data: str
    models: tuple[str, ...]
    seeds: int
    trials: int  # of each model's search and of each control's; 0: presets as they are
    controls: tuple[str, ...]  # beside the first model, which all rows are judged like
    flags: tuple[str, ...]  # --section.field=VALUE of every run
    folder: Path
    diffuses: bool = False  # ask what the diffusion of each system is worth


class Job(NamedTuple):
    """A process."""

    name: str
    words: tuple[str, ...]  # of the command line
    folder: Path
    shared: bool  # several processes may work on it
    finished: Callable[[], bool]
    needs: str = ""  # the job that it reads


class Outcome(NamedTuple):
    """What became of the jobs."""

    done: tuple[Path, ...]  # workdirs of finished runs, those with controls first
    diffusions: dict[str, Path]  # results files of systems whose diffusion was changed
    failed: dict[str, str]  # a sentence for each run that ended otherwise


def open_folder(contest: Contest) -> None:
    """Makes the folder of a contest.

    Raises:
      ValueError: if it holds something else, or another contest; models and seeds may be added.
    """
    path, kept = contest.folder / _FILE, ("data", "trials", "controls", "flags")
    ours = {"schema": SCHEMA} | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in contest._asdict().items()
        if name in kept
    }
    if path.exists():
        there = read_json(path)
        check_schema(there, path)
        for name in kept:
            if there.get(name) != ours[name]:
                raise ValueError(
                    f"{contest.folder} holds a contest with {name} {_said(there.get(name))}, not "
                    f"{_said(ours[name])}; take another folder"
                )
        return
    left = {each.name for each in contest.folder.iterdir()} if contest.folder.is_dir() else set()
    if contest.folder.is_file() or left - {f"{_FILE}.partial"}:  # a kill leaves that
        raise ValueError(f"{contest.folder} is not empty and holds no contest; name a new folder")
    contest.folder.mkdir(parents=True, exist_ok=True)
    json_files.write_json(path, ours)  # first: it marks the folder as a contest's


def jobs(contest: Contest) -> Iterator[Job]:
    """All jobs, a model after the other: its search, then a run a seed."""
    for model in contest.models:
        tuned = contest.folder / "tune" / model
        if contest.trials:
            mark = tuned / "finished.json"
            words = (
                "tune", f"--model={model}", f"--data={contest.data}", f"--workdir={tuned}",
                f"--trials={contest.trials}", *contest.flags,
            )  # fmt: skip
            yield Job(f"{model} search", words, tuned, True, mark.exists)
        for seed in range(contest.seeds):
            folder = contest.folder / "runs" / f"{model}-seed{seed}"
            preset = [f"--preset={tuned / 'best.json'}"] if contest.trials else []
            controls = contest.controls if model == contest.models[0] and seed == 0 else ()
            words = (
                "train", f"--model={model}", f"--data={contest.data}", f"--workdir={folder}",
                *preset, *contest.flags, f"--seed={seed}",
                *_controls(controls, contest.trials),
            )  # fmt: skip
            yield Job(f"{model} seed {seed}", words, folder, False, _whole(folder))
        if contest.diffuses and _diffuses(contest, model):
            folder, output = contest.folder / "runs" / f"{model}-seed0", _changed(contest, model)
            words = (
                "evaluate", f"--workdir={folder}", "--eval.diffuses=true", f"--output={output}",
            )  # fmt: skip
            needs = f"{model} seed 0"
            yield Job(f"{model} diffusion", words, folder, False, output.exists, needs)


def run(contest: Contest, *, log: Log = print) -> Outcome:
    """Does all jobs that nobody else does, and waits for those that somebody does.

    Raises:
      signals.Interrupted: after SIGINT or SIGTERM, when the job under way has saved its state.
      ValueError: on a folder of another contest.
    """
    open_folder(contest)
    if contest.diffuses:
        (contest.folder / _DIFFUSION).mkdir(exist_ok=True)
    failed: dict[str, str] = {}
    without: set[str] = set()  # models whose search failed
    while True:
        busy = 0
        for job in jobs(contest):
            model = job.name.split()[0]
            if job.finished() or job.name in failed:
                continue
            if model in without:
                failed[job.name] = "its search failed"
                continue
            if job.needs in failed:
                failed[job.name] = "its run failed"
                continue
            if job.needs and not _whole(job.folder)():  # somebody else does it
                busy += 1
                continue
            try:
                with locks.writer(_own(contest, job), shared=job.shared):
                    said = None if job.finished() else _do(contest, job, log)
            except locks.InUse:
                busy += 1
                continue
            if said is not None:
                failed[job.name] = said
                log(f"{job.name}: {said}")
                if job.shared:
                    without.add(model)
        if not busy:
            break
        time.sleep(_WAIT)
    done = [job for job in jobs(contest) if not job.shared and job.finished()]
    return Outcome(
        tuple(job.folder for job in done if not job.needs),
        {model: _changed(contest, model) for model in contest.models if _asked(done, model)},
        failed,
    )


def _do(contest: Contest, job: Job, log: Log) -> str | None:
    """Runs a job; None if it ended well, else its last words."""
    log(f"{job.name}: begun")
    path = _own(contest, job) / "log.txt"
    began = time.monotonic()
    with signals.signals() as caught, path.open("a") as file:
        process = subprocess.Popen(
            [*_CLI, *job.words], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        told = False
        while process.poll() is None:
            if caught and not told:
                process.send_signal(signal.SIGTERM)
                told = True
            time.sleep(0.1)
        if caught:
            raise signals.Interrupted(caught[0], contest.folder)
    if process.returncode == 0:
        if job.shared:
            json_files.write_json(job.folder / "finished.json", {"trials": contest.trials})
        log(f"{job.name}: done in {time.monotonic() - began:,.0f} s")
        return None
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"{last} (exit code {process.returncode}, {path})"


def _controls(names: tuple[str, ...], trials: int) -> list[str]:
    if not names:
        return []
    return [f"--eval.controls={','.join(names)}"] + (
        [f"--eval.control-trials={trials}"] if trials else []
    )


def _whole(folder: Path) -> Callable[[], bool]:
    """Whether a workdir has all its results."""

    def finished() -> bool:
        path = workdirs.results_path(folder)
        return path.exists() and results.UNFINISHED not in read_json(path)

    return finished


def _diffuses(contest: Contest, model: str) -> bool:
    dataset = dataset_name(contest.data)
    return hasattr(config.preset(model, dataset).experiment.model, "sampler")


def _changed(contest: Contest, model: str) -> Path:
    """Where a system's figures with its diffusion changed stand."""
    return contest.folder / _DIFFUSION / f"{model}.json"


def _asked(done: Iterable[Job], model: str) -> bool:
    return any(job.name == f"{model} diffusion" for job in done)


def check(contest: Contest) -> None:
    """Refuses names that nobody knows.

    Raises:
      ValueError: naming the nearest.
    """
    for model in contest.models:
        config.preset(model, "synthetic")


def _own(contest: Contest, job: Job) -> Path:
    """The folder of a job's lock and of what it says."""
    folder = contest.folder / "jobs" / job.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _said(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
