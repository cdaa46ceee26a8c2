"""How cost grows, by the file that `benchmarks/scaling.py` left."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FOUND = json.loads((BENCHMARKS / "results" / "scaling.json").read_text())


@pytest.fixture(scope="module")
def scaling():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("scaling")
    finally:
        sys.path.remove(str(BENCHMARKS))


def lines(of, against, which=None):
    found = [line for line in FOUND["growth"] if (line["of"], line["against"]) == (of, against)]
    return [line for line in found if which in (None, line["which"])]


def test_lines_are_those_of_the_points(scaling):
    assert scaling.growth(FOUND["figures"]) == FOUND["growth"]


def test_points_on_a_line_give_it_back(scaling):
    points = [
        {"panel": "steps", "which": "a", "part": "sampler", "steps": n, "processor": 2.0 + 3.0 * n,
         "flops": 7.0, "operations": n}
        for n in (10, 20, 80)
    ]  # fmt: skip
    time, flops, operations = scaling.growth(points)
    assert (time["each"], time["growing"]) == (3.0, 0.992)
    assert flops["growing"] == 0.0 and operations["growing"] == 1.0


def test_programs_do_not_grow_with_steps_nor_memory_with_users():
    flat = lines("operations", "steps") + lines("temporary_bytes", "users")
    assert len(flat) > 10 and all(line["growing"] == 0.0 for line in flat)


def test_time_grows_as_steps_and_users_do():
    found = lines("processor", "steps") + lines("processor", "users")
    assert len(found) == 6 and all(0.85 < line["growing"] < 1.02 for line in found)


def test_memory_of_drawn_negatives_and_lazy_adam_does_not_grow_with_items():
    (update,) = (
        line for line in lines("temporary_bytes", "items", "drawn negatives, lazy Adam")
        if line["part"] == "train"
    )  # fmt: skip
    assert update["growing"] == 0.0
