"""`bin/benchmark`: what systems cost, measured."""

import json
import re
import sys
from pathlib import Path

from jaxrec_diff.commands.terminal import (
    FILE,
    MODEL,
    PLAIN,
    SAMPLER,
    Accepts,
    Flags,
    explain,
    muted,
    quiet_start,
    refuse,
    spelled,
    split_flags,
    whole,
)

USAGE = """\
usage: bin/benchmark sampler|train|rank|evaluate|compile|memory|start
                     [--model=NAME,...] [--data=SOURCE|--shape=SIZES]
                     [--preset=DATASET] [--batches=N,...] [--steps=N,...]
                     [--sampler=KIND,...] [--devices=N,...] [--repeats=5]
                     [--peer=loop|eager-jax|torch|torch-compile,...]
                     [--lower=tpu|cuda] [--output=DIR] [--json] [--quiet]
                     [--section.field=VALUE ...]

  bin/benchmark sampler --model=dreamrec --peer=loop,eager-jax
  bin/benchmark train --model=diffrec,sasrec --batches=256,1024
  bin/benchmark rank --model=dimerec --shape=users:1000,items:1000/1000000
  bin/benchmark compile --model=dreamrec --sampler=ddpm --steps=10,100,500
  bin/benchmark sampler --lower=tpu

sampler   points from histories       train    updates in one dispatch
rank      points and their lists      start    a process to its first lists
evaluate  the test split, metrics     compile, memory   without running
--model   by default all              --shape  random data; / parts values
--sampler ddpm, ddim, ...; fast is what the preset has measured
--peer    the same otherwise: a Python loop over a jitted step, nothing
          jitted, or a PyTorch port of benchmarks/ (sampler and train)
--lower   counts of the program for a platform that is not here
--output  json lines, plots as SVG and PNG; more points join those there
--quiet   errors only                 --json   a line a point on stdout

Parameters are initial ones. FLOPs are the jaxpr's and bytes the optimised
HLO's, loops multiplied out; compile times know no cache. On one core rates
are by processor time (taskset -c 0), else by the wall clock.
"""
_PEERS = ("loop", "eager-jax", "torch", "torch-compile")
ACCEPTS = Accepts(
    {
        "model": MODEL,
        "data": FILE,
        "shape": PLAIN,
        "preset": PLAIN,
        "batches": PLAIN,
        "steps": PLAIN,
        "sampler": SAMPLER,
        "devices": PLAIN,
        "repeats": PLAIN,
        "peer": _PEERS,
        "lower": ("tpu", "cuda"),
        "output": FILE,
    },
    ("quiet", "json"),
    fields="",
    words=("sampler", "train", "rank", "evaluate", "compile", "memory", "start"),
)


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if len(flags.words) != 1:
        return refuse("ask one thing: bin/benchmark sampler, or another of --help")
    quiet_start()
    from jaxrec_diff.benchmarking import asks, measures
    from jaxrec_diff.reporting import benchmarks

    ask = _ask(flags)
    asks.check(ask)
    output = _folder(flags, ask.question)
    quiet = "quiet" in flags.switches

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    command = " ".join([spelled("bin/benchmark"), *argv])
    points = []
    for point in measures.lines(ask, command, say):
        points.append(point)
        say(_progress(point))
        if "json" in flags.switches:
            print(json.dumps(point), flush=True)
        if output is not None:
            with output.open("a") as lines:
                lines.write(json.dumps(point) + "\n")
    with muted(flags.switches):
        if points:
            print(benchmarks.table(points))
        if output is not None and points:
            _plot(output, benchmarks)
    return 0


def _ask(flags: Flags):
    """What the flags ask.

    Raises:
      ValueError: on words that are no numbers, and on flags that exclude each other.
    """
    from jaxrec_diff.benchmarking import asks
    from jaxrec_diff.config import preset_names

    bare = flags.bare
    if "shape" in bare and "data" in bare:
        raise ValueError("--shape makes data and --data reads some; give one of them")
    return asks.Ask(
        question=flags.words[0],
        models=_words(bare, "model") or tuple(preset_names()),
        source=bare.get("data", "synthetic"),
        shapes=asks.shapes_from(bare["shape"]) if "shape" in bare else (),
        preset=bare.get("preset", ""),
        flags=tuple(flags.dotted),
        batches=_numbers(bare, "batches"),
        steps=_numbers(bare, "steps"),
        samplers=_words(bare, "sampler"),
        peers=_words(bare, "peer"),
        devices=_numbers(bare, "devices"),
        repeats=whole(flags, "repeats", 5),
        lower=bare.get("lower", ""),
    )


def _words(bare: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(bare[name].split(",")) if name in bare else ()


def _numbers(bare: dict[str, str], name: str) -> tuple[int, ...]:
    words = _words(bare, name)
    for word in words:
        if not re.fullmatch(r"[1-9]\d*", word):
            raise ValueError(
                f"--{name} takes whole numbers from 1 such as --{name}=100,1000, got {word!r}"
            )
    return tuple(map(int, words))


def _folder(flags: Flags, question: str) -> Path | None:
    """The file of --output that points are added to."""
    if "output" not in flags.bare:
        return None
    folder = Path(flags.bare["output"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{question}.jsonl"


def _progress(point: dict) -> str:
    """A point in a line, as it is made."""
    words = [point["model"], point["part"], point["way"].replace("ours", ""), point["sampler"]]
    words += [f"{point['steps']} steps"] if point["steps"] else []
    said = f"{' '.join(filter(None, words))}, batch {point['batch']}"
    if "rate" in point:
        return f"{said}: {point['rate']:,.0f} {point['unit']}/s"
    return f"{said}: {point['operations']:,} operations"


def _plot(lines: Path, benchmarks) -> None:
    """Plots of all points of the file, where matplotlib is."""
    from jaxrec_diff.reporting import drawing

    print(f"points are in {lines}")
    if not drawing.available():
        print("plots need matplotlib: pip install 'jaxrec-diff[report]'")
        return
    every = [json.loads(line) for line in lines.read_text().splitlines()]
    for path in benchmarks.write(every, lines.parent):
        print(f"written {path}")
