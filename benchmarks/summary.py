"""The tables of the README, from `results/`: all systems, leaderboards, and ours against peers.

    python benchmarks/summary.py            # writes them into README.md and benchmarks/README.md
    python benchmarks/summary.py --print

Every number is read from a file; a row whose file is not there is left out.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.docs import boards, systems
from jaxrec_diff.reporting import text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
MEASUREMENTS = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- benchmarks/summary.py -->", "<!-- end -->"
BOARDS, BOARDS_END = "<!-- leaderboards -->", "<!-- end of leaderboards -->"
RECBOLE, RECBOLE_END = "<!-- recbole -->", "<!-- end of recbole -->"
SYSTEMS, SYSTEMS_END = "<!-- systems -->", "<!-- end of systems -->"


class Side(NamedTuple):
    """A number of a file: the figure that has all of `where`, and its field."""

    where: dict[str, Any]
    field: str


class Row(NamedTuple):
    """One thing done in two ways."""

    what: str
    instead: str
    file: str  # without .json
    theirs: Side
    ours: Side
    unit: str  # a rate, or s for seconds


def sampled(which: str, **where: Any) -> Side:
    return Side({"question": "sampler", "which": which, "batch": 100} | where, "users_per_second")


def stepped(which: str) -> Side:
    return Side({"question": "train step", "which": which}, "examples_per_second")


def listed(which: str) -> Side:
    return Side({"question": "recommend", "which": which}, "users_per_second")


def took(question: str, which: str) -> Side:
    return Side({"question": question, "which": which}, "seconds")


def point(way: str) -> Side:
    """A line of `bin/benchmark`."""
    return Side({"way": way}, "rate")


def served(model: str) -> Side:
    """Lists of `bin/benchmark rank`."""
    return Side({"part": "rank", "model": model}, "rate")


EAGER, COMPILED = "eager PyTorch", "torch.compile"
LOOP, PLAIN = "a loop over a jitted step", "JAX without jit"
DREAMREC, DIFFUREC = "samplers-cpu", "amazon-beauty-diffurec-speed"
DIFFREC, DIQDIFF = "diffrec-cpu", "diqdiff-cpu"
ROWS = (
    Row("DreamRec, 500 reverse steps for 100 users", EAGER, DREAMREC, sampled("torch"),
        sampled("scan"), "users/s"),
    Row("the same", COMPILED, "dreamrec-sampler-cpu", point("torch-compile"), point("ours"),
        "users/s"),
    Row("the same", LOOP, "dreamrec-sampler-cpu", point("loop"), point("ours"), "users/s"),
    Row("the 500 steps in closed form", EAGER, DREAMREC, sampled("torch"), sampled("closed_form"),
        "users/s"),
    Row("DreamRec, updates", EAGER, DREAMREC, stepped("torch"), stepped("jax"), "examples/s"),
    Row("DimeRec, 50 reverse steps for 100 users", EAGER, "dimerec-sampler-cpu", point("torch"),
        point("ours"), "users/s"),
    Row("the same", COMPILED, "dimerec-sampler-cpu", point("torch-compile"), point("ours"),
        "users/s"),
    Row("the same", LOOP, "dimerec-sampler-cpu", point("loop"), point("ours"), "users/s"),
    Row("the same", PLAIN, "dimerec-sampler-cpu", point("eager-jax"), point("ours"), "users/s"),
    Row("DiffuRec on Beauty, lists by 32 reverse steps", EAGER, DIFFUREC, listed("torch"),
        listed("cut, 32 steps"), "users/s"),
    Row("the same by one step", f"{EAGER}, 32 steps", DIFFUREC, listed("torch"),
        listed("cut, 1 step"), "users/s"),
    Row("DiffuRec on Beauty, updates", EAGER, DIFFUREC, stepped("torch"), stepped("cut, one pad"),
        "examples/s"),
    Row("DimeRec, lists by its fast sampler", "SASRec", "serving-fast-cpu", served("sasrec"),
        served("dimerec"), "users/s"),
    Row("DiffuRec, lists by its fast sampler", "SASRec", "serving-fast-cpu", served("sasrec"),
        served("diffurec"), "users/s"),
    Row("DiffRec on ML-1M, an epoch", EAGER, DIFFREC, took("epoch", "torch"), took("epoch", "jax"),
        "s"),
    Row("DiffRec on ML-1M, validation and test", EAGER, DIFFREC, took("evaluation", "torch"),
        took("evaluation", "jax"), "s"),
    Row("DDRM on ML-1M, validation and test, 62 calls", f"{EAGER}, as released", "ddrm-cpu",
        took("evaluation", "torch, as released"), took("evaluation", "jax"), "s"),
    Row("DiQDiff on Beauty, updates", EAGER, DIQDIFF, stepped("torch"), stepped("jax"),
        "examples/s"),
    Row("the same", f"{EAGER}, contrast as a product", DIQDIFF,
        stepped("torch, contrast by matmul"), stepped("jax"), "examples/s"),
)  # fmt: skip


def number(figures: list[dict[str, Any]], side: Side) -> float:
    """The one number that a side names.

    Raises:
      ValueError: if there is none or several.
    """
    found = [f[side.field] for f in figures if side.where.items() <= f.items()]
    if len(found) != 1:
        raise ValueError(f"{len(found)} figures have {side.where}")
    return found[0]


def table() -> str:
    """The rows in markdown."""
    head, lines = ["what, on one CPU thread", "instead", "there", "here", "times"], []
    for row in ROWS:
        path = RESULTS / f"{row.file}.json"
        if not path.exists():
            continue
        figures = json.loads(path.read_text())["figures"]
        theirs, ours = number(figures, row.theirs), number(figures, row.ours)
        factor = theirs / ours if row.unit == "s" else ours / theirs
        sides = [f"{_shown(each)} {row.unit}" for each in (theirs, ours)]
        lines.append([row.what, row.instead, *sides, _shown(factor)])
    return text.table(head, lines)


def recbole() -> str:
    """RecBole's systems beside ours in markdown, from the lines of `recbole.sh`."""
    head, lines = [
        "system", "epochs x updates", "seconds an epoch, there / here", "times",
        "seconds an evaluation", "times", "peak memory, MB", "NDCG@10, %",
    ], []  # fmt: skip
    found = json.loads((RESULTS / "recbole-cpu.json").read_text())["figures"]
    for name in dict.fromkeys(figure["model"] for figure in found):
        theirs, ours = (
            next(f for f in found if f["model"] == name and f["which"] == which)
            for which in ("recbole", "ours")
        )
        cells = [f"`{name}`", f"{theirs['epochs']} x {theirs['updates']} / {ours['updates']}"]
        for field in ("epoch_seconds", "evaluation_seconds"):
            cells.append(f"{_shown(theirs[field])} / {_shown(ours[field])}")
            cells.append(_shown(theirs[field] / ours[field]))
        cells.append(f"{theirs['peak_bytes'] / 1e6:.0f} / {ours['peak_bytes'] / 1e6:.0f}")
        cells.append(f"{100 * theirs['ndcg@10']:.2f} / {100 * ours['ndcg@10']:.2f}")
        lines.append(cells)
    return text.table(head, lines)


def measured(page: str) -> str:
    """`benchmarks/README.md` with its table between its marks."""
    return _between(page, RECBOLE, RECBOLE_END, recbole())


def written(readme: str) -> str:
    """The README with the tables between their marks."""
    readme = _between(readme, BEGIN, END, table())
    readme = _between(readme, BOARDS, BOARDS_END, boards.summary(RESULTS))
    return _between(readme, SYSTEMS, SYSTEMS_END, systems.table(RESULTS))


def _between(text: str, begin: str, end: str, inside: str) -> str:
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{inside}\n\n{end}{after}"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--print", action="store_true", help="write nothing")
    options = parser.parse_args()
    if options.print:
        print(systems.table(RESULTS), boards.summary(RESULTS), table(), recbole(), sep="\n\n")
        return
    for path, filled in ((ROOT / "README.md", written), (MEASUREMENTS, measured)):
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
