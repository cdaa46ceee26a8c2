"""What the commands share: flags, usage, refusals, a progress bar, a quiet start of JAX."""

import dataclasses
import difflib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.commands import COMMANDS
from jaxrec_diff.experiments import run_folders
from jaxrec_diff.reporting.text import wrapped

# What the value of a flag is, for the shell's completion; a dotted name is a field's words.
FILE, MODEL, SAMPLER, PLAIN = "file", "model", "sampler", ""

ESCAPE = """\
--csv-escape a text of a csv that begins as a formula (= + - @ tab) gets a '
             ahead, and the file a column jaxrec_escape, by which --data and
             --histories take it off again; false writes texts as they are"""


class Accepts(NamedTuple):
    """The words of a command: for its parser, and for the shell's completion."""

    values: dict[str, str | tuple[str, ...]]  # of --name=VALUE: one of the above, or the words
    switches: tuple[str, ...] = ()  # --name alone
    fields: str | None = None  # how the dotted flags that it takes begin; "" is all, None no flag
    words: bool | tuple[str, ...] = False  # without a flag: files and folders, or these


class Flags(NamedTuple):
    """Words of a command line."""

    bare: dict[str, str]  # --name=value of the command's own names
    switches: set[str]  # --name alone
    dotted: list[str]  # every other flag
    words: list[str]  # what is no flag, where the command takes such words
    help: bool


def split_flags(argv: list[str], accepts: Accepts) -> Flags:
    """Separates a command's own flags from the dotted ones.

    Raises:
      ValueError: on a flag that lacks its value, is given twice, or is misspelt.
    """
    bare: dict[str, str] = {}
    on: set[str] = set()
    dotted: list[str] = []
    plain: list[str] = []
    rest, asked = list(argv), False
    while rest:
        word = rest.pop(0)
        if word in ("-h", "--help"):
            asked = True
            continue
        if accepts.words and not word.startswith("-"):
            plain.append(word)
            continue
        found = re.fullmatch(r"--([a-z][a-z0-9_-]*)(?:=(.*))?", word, re.DOTALL)
        name = found.group(1).replace("_", "-") if found else ""
        value = found.group(2) if found else None
        if name in accepts.switches:
            if value not in (None, "true", "false"):
                raise ValueError(f"--{name} is a switch and takes no value, got {value!r}")
            if value != "false":
                on.add(name)
            continue
        if not found or name not in accepts.values:
            _check_spelling(word, name, accepts)
            dotted.append(word)
            continue
        if value is None:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value: --{name}=VALUE")
            value = rest.pop(0)
        if name in bare:
            raise ValueError(f"--{name} is given twice; give it once")
        bare[name] = value
    return Flags(bare, on, dotted, plain, asked)


def _check_spelling(word: str, name: str, accepts: Accepts) -> None:
    """Refuses what is nearly a flag of the command and no field, as `--seed` beside `--seeds`."""
    near = difflib.get_close_matches(name, [*accepts.values, *accepts.switches], 1, 0.75)
    if not near or near[0][0] != name[0]:
        return
    from jaxrec_diff.config import Experiment

    if name.replace("-", "_") not in {field.name for field in dataclasses.fields(Experiment)}:
        raise ValueError(f"unknown flag {word}; did you mean --{near[0]}?")


_MOST = 2**31 - 1  # what a device counts with


def whole(flags: Flags, name: str, default: int, low: int = 1) -> int:
    """A bare flag as a whole number.

    Raises:
      ValueError: if it is none, below `low`, or more than 32 bits hold.
    """
    text = flags.bare.get(name, str(default))
    if re.fullmatch(r"\+?0*\d+", text) and (len(text) > 30 or int(text) > _MOST):
        shown = text if len(text) <= 30 else f"{text[:27]}..."
        raise ValueError(f"--{name} must be a whole number of at most {_MOST:,}, got {shown}")
    if not re.fullmatch(r"-?\d{1,30}", text) or int(text) < low:
        raise ValueError(f"--{name} must be a whole number of at least {low}, got {text!r}")
    return int(text)


def on(flags: Flags, name: str) -> bool:
    """A bare flag that is true unless --name=false.

    Raises:
      ValueError: if it is neither.
    """
    text = flags.bare.get(name, "true")
    if text not in ("true", "false"):
        raise ValueError(f"--{name} is true or false, got {text!r}")
    return text == "true"


def sampler_of(flags: Flags) -> dict[str, Any]:
    """What --sampler and --sampler-steps set, by dotted field.

    Raises:
      ValueError: if the second is no number.
    """
    chosen: dict[str, Any] = {}
    if "sampler" in flags.bare:
        chosen["model.sampler.kind"] = flags.bare["sampler"]
    if "sampler-steps" in flags.bare:
        chosen["model.sampler.steps"] = whole(flags, "sampler-steps", 0, 0)
    return chosen


def trained_workdir(flags: Flags) -> Path:
    """The folder that --workdir names.

    Raises:
      ValueError: if it holds no run.
    """
    if "workdir" not in flags.bare:
        raise ValueError("name a trained workdir: --workdir=DIR")
    workdir = Path(flags.bare["workdir"])
    run_folders.check(workdir)
    return workdir


def installed() -> bool:
    """Whether `jaxrec-diff NAME` was typed, not `bin/NAME` of a checkout."""
    return Path(sys.argv[0]).stem == "jaxrec-diff"


def spelled(text: str) -> str:
    """A text with the commands as they were typed: `bin/train`, or `jaxrec-diff train`."""
    names = "|".join(COMMANDS)
    return (
        re.sub(rf"(?<![\w/.-])bin/(?=({names})\b)", "jaxrec-diff ", text) if installed() else text
    )


def explain(usage: str) -> int:
    """Prints a usage; the exit code of help."""
    print(wrapped(spelled(usage)) + "\n")
    return 0


def refuse(message: str) -> int:
    """One sentence on stderr; the exit code of a refusal."""
    with suppress(OSError):  # where that cannot be written, the code alone says it
        print(f"error: {spelled(' '.join(message.split()))}", file=sys.stderr)
    return 2


@contextmanager
def muted(switches: set[str]) -> Iterator[None]:
    """Keeps stdout free: --json sends what is printed to stderr, --quiet sends it nowhere."""
    if not switches & {"quiet", "json"}:
        yield
        return
    with open(os.devnull, "w") as nowhere:
        with redirect_stdout(nowhere if "quiet" in switches else sys.stderr):
            yield


def quiet_start() -> None:
    """Turns the compilation cache on; a folder given by JAX_COMPILATION_CACHE_DIR wins."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "jaxrec_diff" / "xla"))
    # A run has dozens of small programs: a few kB each to keep, and together seconds to compile.
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Says what takes its time, with the seconds so far on a terminal; on stdout.

    Gives a function that is told what is worked on, in words, for a terminal.
    """
    if not sys.stdout.isatty():
        print(f"{what} ...", flush=True)
        yield lambda said: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda said: bar.update(task, description=f"{what}: {said}")


@contextmanager
def counter(
    what: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many are done: a bar on a terminal, else a line in ten
    seconds; both on stderr."""
    if quiet:
        yield lambda done: None
        return
    started = time.monotonic()
    if not sys.stderr.isatty():
        said = [started]

        def plain(done: int) -> None:
            now = time.monotonic()
            if now - said[0] >= 10 or done == total:
                said[0] = now
                of = f" of {total:,}" if total else ""
                rate = done / max(now - started, 1e-9)
                print(f"{what}: {done:,}{of}, {rate:,.0f}/s", file=sys.stderr, flush=True)

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:,}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, rate="")

        def fancy(done: int) -> None:
            rate = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, rate=f"{rate:,.0f}/s")

        yield fancy
