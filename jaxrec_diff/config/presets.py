"""Presets: the files `configs/NAME.py`, each of which makes one `Preset`.

Lists them without importing one: `--help` names them all and stays light.
"""

import ast
import difflib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxrec_diff.config.facts import Facts
from jaxrec_diff.config.space import Space

if TYPE_CHECKING:
    from jaxrec_diff.config.experiment import Experiment

_SHOWN = 30  # names in one sentence, at most


@dataclass(frozen=True, kw_only=True)
class Fast:
    """The fewest calls of a network that rank as well as all reverse steps, to 1 % of NDCG@10."""

    model: Mapping[str, Any]
    """Dotted fields of the model, {"sampler.kind": "ddim", "sampler.steps": 4}."""
    measured: str
    """The file that shows it, in `benchmarks/results/`."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """What `configs/NAME.py` calls `PRESET`: a system's settings by the name of the data set."""

    default: "Experiment"
    """For every other data set."""
    published: Mapping[str, "Experiment"] = field(default_factory=dict)
    """Of the paper or its released code."""
    ours: Mapping[str, "Experiment"] = field(default_factory=dict)
    """Chosen here."""
    search: Space = field(default_factory=dict)
    """What `bin/tune` varies."""
    backbone: str = ""
    """The preset whose settings for the same data set are those of the earlier phase, where an
    experiment names none itself."""
    facts: Facts = Facts()
    """Published figures, and what to expect of the system."""
    fast: Mapping[str, Fast] = field(default_factory=dict)
    """What `--sampler=fast` means by the name of the settings, "default" or a data set's."""

    def __post_init__(self) -> None:
        both = sorted(self.published.keys() & self.ours.keys())
        if both:
            raise ValueError(f"settings for {both[0]} are published or ours, not both")
        for name in self.fast:
            if self.named(name) != name:
                raise ValueError(f"a fast sampler is of settings that there are, got {name!r}")

    def named(self, dataset: str) -> str:
        """The name of the settings for a data set: its own, or "default"."""
        return dataset if dataset in self.published or dataset in self.ours else "default"

    def settings(self, dataset: str) -> tuple["Experiment", str]:
        """Those for a data set, and a phrase that says where they come from."""
        if dataset in self.published:
            return self.published[dataset], f"published settings for {dataset}"
        if dataset in self.ours:
            return self.ours[dataset], f"settings chosen here for {dataset}"
        return self.default, f"default settings ({dataset} has no published ones)"


def preset_folder() -> Path:
    """`configs/` of a checkout, or its copy inside an installed package."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def preset_names() -> list[str]:
    """Names that `--model` takes."""
    return sorted(path.stem for path in preset_folder().glob("*.py"))


def docstring(name: str) -> str:
    """What a preset says of itself, without importing it."""
    return ast.get_docstring(ast.parse((preset_folder() / f"{name}.py").read_text())) or ""


def about(name: str) -> str:
    """Its first sentence."""
    return " ".join(docstring(name).split("\n\n")[0].split()).rstrip(".")


def load(name: str) -> Preset:
    """The preset of `configs/NAME.py`.

    Raises:
      ValueError: on an unknown name, with the nearest known one, or a file without a preset.
    """
    names = preset_names()
    if name not in names:
        raise ValueError(f"unknown model {name!r}; {suggest(name, names)}")
    path = preset_folder() / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"jaxrec_diff_preset_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = getattr(module, "PRESET", None)
    if not isinstance(made, Preset):
        raise ValueError(f"{path} makes no PRESET = Preset(default=...)")
    return made


def search_space(name: str) -> Space:
    """What `configs/NAME.py` lets a search vary."""
    return load(name).search


def suggest(name: str, known: list[str], prefix: str = "") -> str:
    """The nearest known name, or all of them where they are few.

    A name is near if it ends as another does, stands for the words of one by their first letters,
    is spelled almost as one, or is one of its words.

    >>> suggest("train.batchsize", ["train.batch-size", "seed"], "--")
    'did you mean --train.batch-size?'
    >>> suggest("lr", ["seed", "train.learning-rate"], "--")
    'did you mean --train.learning-rate?'
    >>> suggest("qqq", ["mf", "sasrec"])
    'there are mf, sasrec'
    """
    last = name.rsplit(".", 1)[-1]
    words = {option: re.split("[-_]", option.rsplit(".", 1)[-1]) for option in known}
    near = (
        [option for option in known if option.rsplit(".", 1)[-1] == last]
        or [option for option, each in words.items() if "".join(w[:1] for w in each) == last]
        or difflib.get_close_matches(name, known, 1, 0.5)
        or [option for option, each in words.items() if last in each]
    )
    if near:
        return f"did you mean {prefix}{near[0]}?"
    if len(known) > _SHOWN:
        return f"bin/train --model=NAME --help lists all {len(known)}"
    return f"there are {', '.join(prefix + option for option in known)}"
