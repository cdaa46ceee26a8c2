"""Many models on one data set: tuned with an equal budget, trained over seeds, told side by side.

The folder of a contest holds `contest.json` (what is compared), `tune/MODEL/` (a search each),
`runs/MODEL-seedN/` (a workdir each), `serving/MODEL.json` (its speed), `classic/NAME.json`,
`diffusion/MODEL.json` where that is asked, `jobs/` (what each said), and the tables. Every job is a
process of its own, so that its memory is free when it ends; what is finished is known by its files,
so the same call goes on after a kill, and several at once share the jobs.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff import config
from jaxrec_diff.classics import grids
from jaxrec_diff.config.stored import SCHEMA, check_schema, read_json
from jaxrec_diff.data import sources
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.experiments import entrants, json_files, locks, results, signals, workdirs

Log = Callable[[str], None]

_FILE = "contest.json"
_KINDS = _CLASSIC, _SERVING, _DIFFUSION = "classic", "serving", "diffusion"
_ORDER = "--eval.shuffles="
_WAIT = 2.0  # seconds between looks at jobs that other processes do
_MANY = 10_000  # trials, where minutes are the limit
_CLI = (sys.executable, "-P", "-m", "jaxrec_diff.cli")


class Budget(NamedTuple):
    """What a search may take, the same for all; nothing: presets as they are."""

    trials: int = 0
    minutes: int = 0  # of all trials together, the last of which is trained to its end

    def __str__(self) -> str:
        if self.minutes:
            return f"{self.minutes} minutes each"
        return f"{self.trials} trials each" if self.trials else "none: presets as they are"

    def searches(self) -> bool:
        return self != Budget()

    def flags(self, trials: str, minutes: str) -> tuple[str, ...]:
        """As flags of a command that calls its limits so."""
        if self.minutes:
            return f"--{trials}={_MANY}", f"--{minutes}={self.minutes}"
        return (f"--{trials}={self.trials}",) if self.trials else ()


def budget(text: str) -> Budget:
    """A budget from its words, as `str` spells no budget: whole minutes, or `trials:N`.

    Raises:
      ValueError: on other words.

    >>> budget("90"), budget("trials:24"), budget("trials:0")
    (Budget(trials=0, minutes=90), Budget(trials=24, minutes=0), Budget(trials=0, minutes=0))
    """
    kind, colon, number = text.rpartition(":")
    if kind not in ("", "trials") or not number.isdecimal() or not (colon or int(number)):
        raise ValueError(f"--budget takes minutes, 90, or trials:24, got {text!r}")
    return Budget(trials=int(number)) if colon else Budget(minutes=int(number))


class Contest(NamedTuple):
    """What is compared, and how."""

    data: str
    models: tuple[str, ...]
    seeds: int
    budget: "Budget"  # of each model's search and of each classic's
    controls: tuple[str, ...]  # classics
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
    needs: "Job | None" = None  # that it reads


class Outcome(NamedTuple):
    """What became of the jobs so far."""

    done: tuple[Path, ...]  # workdirs of finished runs
    trials: dict[str, int]  # of the searches, by model
    classics: dict[str, Path]  # results files by name, each beside values of its users
    serving: dict[str, Path]  # results files of models that were timed
    diffusions: dict[str, Path]  # those of systems whose diffusion was changed
    failed: dict[str, str]  # a sentence for each job that ended otherwise
    left: tuple[str, ...]  # jobs that are not done yet


def command(contest: Contest) -> str:
    """The line that makes a contest again, without its folder.

    >>> command(Contest("clicks.csv", ("mf",), 3, Budget(24), ("ease",), (), Path("board")))
    'bin/leaderboard --data=clicks.csv --models=mf --seeds=3 --budget=trials:24 --controls=ease'
    """
    limit = contest.budget
    words = [
        "bin/leaderboard", f"--data={contest.data}", f"--models={','.join(contest.models)}",
        f"--seeds={contest.seeds}", f"--budget={limit.minutes or f'trials:{limit.trials}'}",
        f"--controls={','.join(contest.controls) or 'none'}", *contest.flags,
        *(["--diffuses"] if contest.diffuses else []),
    ]  # fmt: skip
    return " ".join(words)


def open_folder(contest: Contest) -> None:
    """Makes the folder of a contest.

    Raises:
      ValueError: if it holds something else, or another contest; models and seeds may be added.
    """
    path, kept = contest.folder / _FILE, ("data", "budget", "controls", "flags")
    ours = {
        "schema": SCHEMA, "data": contest.data, "budget": str(contest.budget),
        "controls": list(contest.controls), "flags": list(contest.flags),
    }  # fmt: skip
    if path.exists():
        there = read_json(path)
        check_schema(there, path)
        if "budget" not in there:  # of an older version
            there["budget"] = str(Budget(there.get("trials", 0)))
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


def jobs(contest: Contest, failed: Mapping[str, str]) -> Iterator[Job]:
    """All jobs, those of first seeds before those of further ones, so that a contest which is
    stopped early has a table of everything.

    A model's search, its run and how fast that serves, a model after the other; as soon as a run is
    there the classics, which are judged like it; what each diffusion is worth; further seeds. Where
    some model reads whole histories, classics read them too: a model of users' rows sees none of
    what came after training, and beside it they would be worse than they are.

    Args:
      contest: what is compared.
      failed: a sentence for each job that did not end well.
    """
    firsts, classics = [], False
    most = max(_seen(contest, each) for each in contest.models)
    asked = [each for each in contest.models if _seen(contest, each) == most]
    for model in contest.models:
        search = _search(contest, model) if contest.budget.searches() else None
        first = _training(contest, model, 0, search)
        firsts.append(first)
        yield from [search] if search else []
        yield first
        yield _evaluation(contest, f"{model} {_SERVING}", first, "--speed")
        there = [each for each in firsts if each.finished() and _model(each) in asked]
        if there and not classics:
            yield from (_classic(contest, name, there[0]) for name in contest.controls)
            classics = True
    rest = [each for each in firsts if each.finished()]
    none = all(_hopeless(each, failed) for each in firsts if _model(each) in asked)
    if rest and none:
        beside = max(rest, key=lambda each: _seen(contest, _model(each)))
        yield from (_classic(contest, name, beside) for name in contest.controls)
    for model, first in zip(contest.models, firsts, strict=True):
        if contest.diffuses and entrants.diffuses(dataset_name(contest.data), model):
            yield _evaluation(contest, f"{model} {_DIFFUSION}", first, "--eval.diffuses=true")
    for seed in range(1, contest.seeds):
        for model, first in zip(contest.models, firsts, strict=True):
            yield _training(contest, model, seed, first)


def _search(contest: Contest, model: str) -> Job:
    tuned = contest.folder / "tune" / model
    words = (
        "tune", f"--model={model}", f"--data={contest.data}", f"--workdir={tuned}",
        *contest.budget.flags("trials", "minutes"), *_without_order(contest.flags),
    )  # fmt: skip
    return Job(f"{model} search", words, tuned, True, (tuned / "finished.json").exists)


def _training(contest: Contest, model: str, seed: int, needs: Job | None) -> Job:
    folder = contest.folder / "runs" / f"{model}-seed{seed}"
    best = contest.folder / "tune" / model / "best.json"
    preset = [f"--preset={best}"] if contest.budget.searches() else []
    in_order = entrants.reads_order(dataset_name(contest.data), model)
    flags = contest.flags if in_order else _without_order(contest.flags)
    words = (
        "train", f"--model={model}", f"--data={contest.data}", f"--workdir={folder}",
        *preset, *flags, f"--seed={seed}",
    )  # fmt: skip
    return Job(f"{model} seed {seed}", words, folder, False, _whole(folder), needs)


def _evaluation(contest: Contest, name: str, of: Job, *words: str) -> Job:
    """A trained run again, in a file of its own."""
    title, kind = name.split()
    output = contest.folder / kind / f"{title}.json"
    words = ("evaluate", f"--workdir={of.folder}", *words, f"--output={output}")
    return Job(name, words, output, False, output.exists, of)


def _classic(contest: Contest, name: str, beside: Job) -> Job:
    limits = contest.budget.flags("eval.control-trials", "eval.control-minutes")
    path = contest.folder / _CLASSIC / f"{name}.parquet"
    words = (f"--eval.controls={name}", *limits, f"--per-user={path}")
    job = _evaluation(contest, f"{name} {_CLASSIC}", beside, *words)

    def finished() -> bool:
        if not job.folder.exists() or not path.exists():
            return False
        judged = read_json(job.folder)["model"].rpartition("+")[2]  # like this one
        return _seen(contest, judged) == _seen(contest, _model(beside))

    return job._replace(finished=finished)


def run(
    contest: Contest, *, log: Log = print, after: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Does all jobs that nobody else does, and waits for those that somebody does.

    Args:
      contest: what is compared.
      log: takes a line when a job begins and when it ends.
      after: takes what there is, at the beginning and after every job.

    Raises:
      signals.Interrupted: after SIGINT or SIGTERM, when the job under way has saved its state.
      ValueError: on a folder of another contest.
    """
    open_folder(contest)
    for kind in _KINDS:
        (contest.folder / kind).mkdir(exist_ok=True)
    failed: dict[str, str] = {}
    after(outcome(contest, failed))
    while True:
        busy = 0
        for job in jobs(contest, failed):
            if job.finished() or _hopeless(job, failed):
                continue
            if job.needs and not job.needs.finished():  # somebody else does it
                busy += 1
                continue
            try:
                with locks.writer(_own(contest, job), shared=job.shared):
                    if job.finished():
                        continue
                    said = _do(contest, job, log)
            except locks.InUse:
                busy += 1
                continue
            if said is not None:
                failed[job.name] = said
                log(f"{job.name}: {said}")
            after(outcome(contest, failed))
        if not busy:
            return outcome(contest, failed)
        time.sleep(_WAIT)


def outcome(contest: Contest, failed: dict[str, str]) -> Outcome:
    """What there is in the folder of a contest.

    Args:
      contest: what is compared.
      failed: a sentence for each job that did not end well.
    """
    known = list(jobs(contest, failed))
    done = [job for job in known if job.finished()]

    def files(kind: str) -> dict[str, Path]:
        return {_model(job): job.folder for job in done if job.name.endswith(f" {kind}")}

    left = [job.name for job in known if not job.finished() and not _hopeless(job, failed)]
    names = {job.name for job in known}
    left += [each for name in contest.controls if (each := f"{name} {_CLASSIC}") not in names]
    return Outcome(
        tuple(job.folder for job in done if job.words[0] == "train"),
        {
            _model(job): sum(each.is_dir() for each in job.folder.glob("trials/*"))
            for job in done
            if job.words[0] == "tune"
        },
        files(_CLASSIC),
        files(_SERVING),
        files(_DIFFUSION),
        dict(failed),
        tuple(left),
    )


def model_of(folder: Path) -> str:
    """The model of a run's workdir.

    >>> model_of(Path("board/runs/dimerec-seed0"))
    'dimerec'
    """
    return folder.name.rpartition("-seed")[0]


def _seen(contest: Contest, model: str) -> int:
    return entrants.seen(dataset_name(contest.data), model, contest.flags)


def _model(of: Job) -> str:
    """The model or classic of a job."""
    return of.name.split()[0]


def _without_order(flags: tuple[str, ...]) -> tuple[str, ...]:
    """What a search takes, which needs no such figure, and a model that has no order to shuffle."""
    return tuple(flag for flag in flags if not flag.startswith(_ORDER))


def _hopeless(job: Job, failed: Mapping[str, str]) -> bool:
    """Whether a job, or one that it needs, has failed."""
    return job.name in failed or (job.needs is not None and _hopeless(job.needs, failed))


def _do(contest: Contest, job: Job, log: Log) -> str | None:
    """Runs a job; None if it ended well, else its last words."""
    log(f"{job.name}: begun")
    path = _own(contest, job) / "log.txt"
    began = time.monotonic()
    with signals.signals() as caught, path.open("a") as file:
        process = subprocess.Popen(
            [*_CLI, *job.words], stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={"JAXREC_REPORT": "0", **os.environ},  # bin/report makes the page of a run
        )  # fmt: skip
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
            json_files.write_json(job.folder / "finished.json", {"budget": str(contest.budget)})
        log(f"{job.name}: done in {time.monotonic() - began:,.0f} s")
        return None
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    last = lines[-1].removeprefix("error: ") if lines else "it said nothing"
    return f"{last} (exit code {process.returncode}, {path})"


def _whole(folder: Path) -> Callable[[], bool]:
    """Whether a workdir has all its results."""

    def finished() -> bool:
        path = workdirs.results_path(folder)
        return path.exists() and results.UNFINISHED not in read_json(path)

    return finished


def check(contest: Contest) -> None:
    """Refuses names that nobody knows, settings that no model takes, and data that is not there.

    What some models take and others do not is left to their runs, and so is every setting of
    `--model` and its backbone.

    Raises:
      ValueError: naming the nearest.
    """
    own = ("--model.", "--backbone.")
    common = [flag for flag in contest.flags if not flag.startswith(own)]
    refused = {}
    for model in contest.models:
        experiment = config.preset(model, dataset_name(contest.data)).experiment
        try:
            config.parse(experiment, common)
        except ValueError as error:
            refused[model] = error
    if refused and len(refused) == len(set(contest.models)):
        raise next(iter(refused.values()))
    for name in contest.controls:
        grids.check(name, num_items=0)  # of how many items is not known yet
    if not (contest.folder / _FILE).exists():  # tables of what is done need no data
        sources.check(contest.data)


def _own(contest: Contest, job: Job) -> Path:
    """The folder of a job's lock and of what it says."""
    folder = contest.folder / "jobs" / job.name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _said(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
