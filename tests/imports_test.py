"""Imports follow the rooms of the package: what may use what, and what stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxrec_diff"

# The import law, from the foundations up: a room imports itself and rooms named before it. A folder
# is one room, unless a module of it has a row of its own.
ROOMS = (
    "lazy",
    "_version",
    "ops",
    "losses",
    "validation",
    "diffusion",
    "data",
    "batches",
    "nets",
    "layout",
    "models",
    "training",
    "classics",
    "evaluation",
    "augmentation",
    "config",
    "experiments",
    "inference",
    "benchmarking",
    "reporting",
    "docs",
    "serving",
    "commands",
    "cli",
    "api",
    "__init__",
    "examples",
)

# What other programs lift out: jax, numpy and chex are all that it needs.
MATHS = {
    "losses",
    "evaluation.metrics",
    "evaluation.topk",
    *(
        f"ops.{name}"
        for name in (
            "graph",
            "id_rows",
            "kmeans",
            "meshes",
            "negatives",
            "normals",
            "quantize",
            "ragged",
            "rng",
            "sparse",
            "streams",
            "threefry",
            "vectors",
        )
    ),
    *(
        f"diffusion.{name}"
        for name in (
            "closed_form",
            "forward",
            "guidance",
            "heat",
            "process",
            "samplers",
            "schedules",
            "sphere",
            "timesteps",
            "weights",
        )
    ),
}

HEAVY = ["flax", "optax", "orbax", "pyarrow", "rich", "tensorflow_datasets", "tyro"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(name: str, source: str) -> set[str]:
    """All modules that a module's source names in imports, wherever they stand."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import; write the full name"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return found


SOURCES = {name: path.read_text() for name, path in MODULES.items()}
IMPORTS = {name: imported(name, source) for name, source in SOURCES.items()}


def room(module: str) -> str:
    rest = module.removeprefix("jaxrec_diff").removeprefix(".") or "__init__"
    return rest if rest in ROOMS else rest.split(".")[0]


def inside(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "jaxrec_diff"}


def cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """A closed walk in the graph, or None."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return path[path.index(node) :] + [node]
        if node in done:
            return None
        for other in sorted(graph.get(node, ())):
            found = visit(other, path + [node])
            if found:
                return found
        done.add(node)
        return None

    return next(filter(None, (visit(node, []) for node in sorted(graph))), None)


def test_cycle_is_seen():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def test_imports_inside_functions_and_of_names_are_seen():
    lines = "from jaxrec_diff import losses", "from jaxrec_diff.evaluation.topk import Top"
    source = "\n    ".join(["def f():", *lines])
    assert imported("x", source) == {"jaxrec_diff.losses", "jaxrec_diff.evaluation.topk"}


def test_no_module_imports_itself_through_others():
    assert cycle({name: inside(names) for name, names in IMPORTS.items()}) is None


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_towards_the_foundations(module):
    here = room(module)
    assert here in ROOMS, f"give {module} a row in ROOMS"
    known = ROOMS[: ROOMS.index(here) + 1]
    for other in inside(IMPORTS[module]):
        assert room(other) in known, f"{module} must not import {other}"


@pytest.mark.parametrize("name", sorted(MATHS))
def test_mathematics_needs_jax_numpy_and_chex_only(name):
    for other in IMPORTS[f"jaxrec_diff.{name}"]:
        top = other.split(".")[0]
        if top == "jaxrec_diff":
            assert other.removeprefix("jaxrec_diff.") in MATHS, f"{name} must not import {other}"
        else:
            known = {"jax", "numpy", "chex"} | sys.stdlib_module_names
            assert top in known, f"{name} must not import {other}"


def test_mathematics_loads_nothing_heavy():
    program = (
        f"import sys, importlib\n"
        f"for name in {sorted(MATHS)}: importlib.import_module('jaxrec_diff.' + name)\n"
        f"print(*({{name.split('.')[0] for name in sys.modules}} & set({HEAVY})))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def test_only_presets_and_other_models_name_a_model():
    """So a run loads its own model and what that is made of, and a new one is listed nowhere."""
    models = {name for name in MODULES if room(name) == "models" and "def build(" in SOURCES[name]}
    assert len(models) > 10
    for module in MODULES.keys() - models:
        assert room(module) == "examples" or not IMPORTS[module] & models, module


def test_training_knows_no_model():
    files = [*(ROOT / "configs").glob("*.py"), *(PACKAGE / "models").glob("*.py")]
    names = "|".join(
        sorted(
            {path.stem for path in files}
            - {"__init__", "contract", "protocols", "readers", "registry"}
        )
    )
    word = re.compile(rf"(?<![a-z0-9])({names})(?![a-z0-9])|({names})config")
    for path in (PACKAGE / "training").glob("*.py"):
        found = word.search(path.read_text().lower())
        assert found is None, f"{path.name} names {found[0]}"


def test_mathematics_is_handed_on_by_its_flat_names():
    import jaxrec_diff

    assert set(jaxrec_diff._MODULES.values()) == {f"jaxrec_diff.{name}" for name in MATHS}
