"""An experiment as frozen dataclasses, its presets, and its dotted flags."""

import dataclasses
import difflib
import importlib.util
import io
import json
import os
import re
import typing
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from jaxrec_diff import validation
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.evaluation.config import EvalConfig
from jaxrec_diff.search import Space
from jaxrec_diff.training.config import TrainConfig
from jaxrec_diff.training.tracking import LogConfig

ModelConfig = TypeVar("ModelConfig")
Backbone = TypeVar("Backbone")


@dataclass(frozen=True, kw_only=True)
class Phase(Generic[ModelConfig]):
    """A model that is trained first, for what it exports."""

    preset: str
    """Where its settings come from."""
    model: ModelConfig
    train: TrainConfig
    eval: EvalConfig


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[ModelConfig, Backbone]):
    """Everything a run depends on beside the data itself."""

    model: ModelConfig
    backbone: Backbone = None  # type: ignore[assignment]
    """A `Phase` before this one, or None."""
    embeddings: str = ""
    """An npz file with what a backbone would have exported, used in its place."""
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    log: LogConfig = field(default_factory=LogConfig)
    seed: int = 0
    """Of initial weights, order and noise."""
    parallel: Literal["jit", "pmap"] = "jit"
    """Sharded jit over all devices, or pmap."""
    devices: int = 0
    """Devices to use; 0 takes all."""

    def __post_init__(self) -> None:
        validation.at_least("seed", self.seed, 0)
        validation.at_least("devices", self.devices, 0)


# What may differ between a run and its continuation: it changes no number up to the stopping point.
RUN_CONTROL = (
    "train.num_epochs",
    "train.patience",
    "eval.track_test",
    "eval.controls",
    "eval.seeds",
    "log.tensorboard",
    "log.wandb",
    "parallel",
    "devices",
)


# Fields that the bare flag --backbone sets.
_NO_FLAGS = ("backbone", "backbone.preset")


class Preset(NamedTuple):
    """Settings and where they come from."""

    experiment: Experiment
    origin: str  # a phrase for the terminal


def preset_folder() -> Path:
    """`configs/` of a checkout, or its copy inside an installed package."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


def preset_names() -> list[str]:
    """Names that `--model` takes."""
    return sorted(path.stem for path in preset_folder().glob("*.py"))


def preset(name: str, dataset: str) -> Preset:
    """The settings that `configs/NAME.py` has for a data set.

    Raises:
      ValueError: on an unknown name, with the nearest known one.
    """
    names = preset_names()
    if name not in names:
        raise ValueError(f"unknown model {name!r}; {_suggest(name, names)}")
    module = _load(preset_folder() / f"{name}.py")
    if dataset in module.PUBLISHED:
        origin = f"published settings for {dataset}"
    elif dataset in getattr(module, "OURS", {}):
        origin = f"settings chosen here for {dataset}"
    else:
        origin = f"default settings ({dataset} has no published ones)"
    return Preset(module.config(dataset), origin)


class Chosen(NamedTuple):
    """What the bare flags of `bin/train` and `bin/tune` name."""

    name: str  # of the preset
    source: str  # of the data
    preset: Preset


def choose(bare: dict[str, str]) -> Chosen:
    """The settings that --model, --data, --preset and --backbone ask for.

    --preset is a data set whose settings are taken, or a json file of settings: what `bin/tune`
    found, or the `config.json` of a run. The file names its data, which --data overrides.

    Raises:
      ValueError: on an unknown name or a file that cannot be used.
    """
    if "model" not in bare:
        raise ValueError(f"name a model: --model=NAME, one of {', '.join(preset_names())}")
    name, settings_of = bare["model"], bare.get("preset", "")
    if settings_of.endswith(".json"):
        stored = read(Path(settings_of))
        if stored.name != name:
            raise ValueError(f"{settings_of} holds settings of {stored.name}, not of {name}")
        source, made, settings_of = bare.get("data", stored.source), stored.preset, ""
    else:
        source = bare.get("data", "synthetic")
        made = preset(name, settings_of or dataset_name(source))
    if "backbone" in bare:
        of = settings_of or dataset_name(source)
        made = made._replace(experiment=with_backbone(made.experiment, bare["backbone"], of))
    return Chosen(name, source, made)


def read(path: Path) -> Chosen:
    """The settings in a json file, which holds them as the `config.json` of a run does.

    Raises:
      ValueError: if the file is damaged or written by another version.
    """
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError):
        raise ValueError(f"{path} cannot be read as json; take another file") from None
    try:
        name, source = stored.pop("preset"), stored.pop("source")
        like = preset(name, dataset_name(source)).experiment
        if stored.get("backbone") is not None:
            like = with_backbone(like, stored["backbone"]["preset"], dataset_name(source))
        elif stored.get("embeddings"):
            like = with_backbone(like, stored["embeddings"], dataset_name(source))
        return Chosen(name, source, Preset(from_json(like, stored), f"settings of {path}"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no settings that can be used: {error!r}") from None


def search_space(name: str) -> Space:
    """What `configs/NAME.py` lets a search vary."""
    return _load(preset_folder() / f"{name}.py").SEARCH


def phase(name: str, dataset: str) -> Phase:
    """The settings of a preset as an earlier phase.

    Raises:
      ValueError: on an unknown name, or a preset that has an earlier phase itself.
    """
    chosen = preset(name, dataset).experiment
    if chosen.backbone is not None:
        raise ValueError(f"{name} needs a backbone itself and cannot be one")
    return Phase(preset=name, model=chosen.model, train=chosen.train, eval=chosen.eval)


def with_backbone(experiment: Experiment, backbone: str, dataset: str) -> Experiment:
    """The experiment on another backbone: a preset's name or an npz file of its arrays.

    Raises:
      ValueError: if the experiment takes none, or on an unknown name.
    """
    if experiment.backbone is None and not experiment.embeddings:
        raise ValueError(
            f"--backbone={backbone} was given, but {type(experiment.model).__name__} takes none"
        )
    if backbone.endswith(".npz"):
        return dataclasses.replace(experiment, backbone=None, embeddings=backbone)
    return dataclasses.replace(experiment, backbone=phase(backbone, dataset), embeddings="")


def parse(experiment: Experiment, flags: list[str]) -> Experiment:
    """Applies dotted flags, `--train.batch-size=512`, to an experiment.

    Raises:
      ValueError: on an unknown, repeated or ill-typed flag, in one sentence.
    """
    kinds = dict(_leaves(experiment))
    words: list[str] = []
    seen: set[str] = set()
    for name, value in _pairs(flags):
        if name not in kinds:
            raise ValueError(f"unknown flag --{name}; {_suggest(name, list(kinds), '--')}")
        if name in seen:
            raise ValueError(f"--{name} is given twice; give it once")
        seen.add(name)
        if any(dataclasses.is_dataclass(part) for part in typing.get_args(kinds[name])):
            raise ValueError(
                f"--{name} takes no {value!r}: it holds records, which a preset or a json file of "
                "settings can give (--preset=FILE.json)"
            )
        words += _words(name, value, kinds[name])
    parsed = _tyro(experiment, words)
    # Arrays that are given need no phase that would make them.
    return dataclasses.replace(parsed, backbone=None) if parsed.embeddings else parsed


def flag_names(experiment: Experiment) -> list[str]:
    """Names of the dotted flags that `parse` takes."""
    return [name for name, _ in _leaves(experiment)]


def given(flags: list[str]) -> tuple[str, ...]:
    """Names of the fields that dotted flags set."""
    return tuple(name for name, _ in _pairs(flags))


def flag_words(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """The dotted flags that `parse` takes, and for each the words it can be, or ()."""
    return {name: _choices(kind) for name, kind in _leaves(experiment)}


def show_help(experiment: Experiment, usage: str) -> str:
    """The generated list of dotted flags with their defaults."""
    out = io.StringIO()
    with redirect_stdout(out):
        try:
            _cli(experiment, ["--help"], usage)
        except SystemExit:
            pass
    return out.getvalue()


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Nested plain dicts, as `config.json` holds them."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_json(experiment: Experiment, stored: dict[str, Any]) -> Experiment:
    """The experiment that `to_json` wrote; `experiment` gives the types."""
    return _rebuild(experiment, stored)


def difference(
    stored: dict[str, Any], wanted: dict[str, Any], free: tuple[str, ...] = RUN_CONTROL
) -> str | None:
    """The first field that differs and is not `free` to, `train.batch_size: 256 there, 512 here`,
    or None."""
    old, new = dict(_flatten(stored)), dict(_flatten(wanted))
    for name in sorted(old.keys() | new.keys()):
        if name not in free and old.get(name) != new.get(name):
            return f"{name}: {old.get(name)} there, {new.get(name)} here"
    return None


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"jaxrec_diff_preset_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _suggest(name: str, known: list[str], prefix: str = "") -> str:
    last = name.rsplit(".", 1)[-1]
    same = [option for option in known if option.rsplit(".", 1)[-1] == last]
    near = same or difflib.get_close_matches(name, known, 1, 0.5)
    if near:
        return f"did you mean {prefix}{near[0]}?"
    return f"there are {', '.join(prefix + option for option in known)}"


def _pairs(flags: list[str]) -> list[tuple[str, str]]:
    """(name, value) of `--name=value` and `--name value`."""
    pairs, rest = [], list(flags)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"expected a flag such as --train.batch-size=256, got {word!r}")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value: --{name}=VALUE")
            value = rest.pop(0)
        pairs.append((name.replace("_", "-"), value))
    return pairs


def _words(name: str, value: str, kind: Any) -> list[str]:
    """The words that tyro takes: a word an element, Python's spelling of truth and None."""
    if typing.get_origin(kind) is tuple:
        return [f"--{name}", *(part for part in re.split(r"[,\s]+", value) if part)]
    spelled = {"true": "True", "false": "False", "none": "None", "null": "None"}
    plain = kind is str or value in typing.get_args(kind)  # "none" may be one of several words
    return [f"--{name}={value if plain else spelled.get(value.lower(), value)}"]


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return "true", "false"
    if typing.get_origin(kind) is Literal:
        return tuple(map(str, typing.get_args(kind)))
    inner = [arg for arg in typing.get_args(kind) if arg is not Ellipsis]
    return _choices(inner[0]) if typing.get_origin(kind) is tuple else ()


def _leaves(value: Any, prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(type(value))
    for entry in dataclasses.fields(value):
        name, item = prefix + entry.name.replace("_", "-"), getattr(value, entry.name)
        if dataclasses.is_dataclass(item):
            yield from _leaves(item, name + ".")
        elif name not in _NO_FLAGS:
            yield name, hints[entry.name]


def _cli(experiment: Experiment, words: list[str], usage: str | None = None) -> Experiment:
    import tyro  # here: only the command line needs it

    generic: Any = Experiment
    hidden = Annotated[None, tyro.conf.Suppress]
    backbone: Any = hidden
    if experiment.backbone is not None:
        phase_of: Any = Phase
        backbone = phase_of[type(experiment.backbone.model)]
    return tyro.cli(
        generic[type(experiment.model), backbone],
        default=experiment,
        args=words,
        prog=usage,
        description="" if usage is None else f"{usage} --train.learning-rate=0.003",
        config=(tyro.conf.FlagConversionOff,),
    )


def _tyro(experiment: Experiment, words: list[str]) -> Experiment:
    said = io.StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"  # keeps each of tyro's messages on a line of its own
    try:
        with redirect_stderr(said), redirect_stdout(said):
            return _cli(experiment, words)
    except SystemExit:
        raise ValueError(_sentence(said.getvalue())) from None
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns


def _sentence(box: str) -> str:
    """The one line of tyro's framed message that says what is wrong."""
    lines = [line.strip(" │╭╮╰╯─") for line in box.splitlines()]
    for line in lines:
        found = re.match(r"Error parsing (\S+): (.*)", line)
        if found:
            flag, reason = found.groups()
            return f"{flag}: {reason}" if flag.startswith("--") else reason
        found = re.match(
            r"invalid choice (.*) for argument '(--\S+)'. Expected one of \((.*)\)", line
        )
        if found:
            value, flag, choices = found.groups()
            return f"{flag} cannot be {value}; it is one of {choices.replace(chr(39), '')}"
    return next((line for line in lines if line), "the flags could not be read; see --help")


def _flatten(value: Any, prefix: str = "") -> typing.Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix.rstrip("."), value
        return
    for name, item in value.items():
        yield from _flatten(item, f"{prefix}{name}.")


def _rebuild(like: Any, stored: Any, kind: Any = None) -> Any:
    if dataclasses.is_dataclass(like) and not isinstance(like, type):
        known = {entry.name for entry in dataclasses.fields(like)}
        unknown = [name for name in stored if name not in known]
        if unknown:
            raise ValueError(
                f"config.json has {unknown[0]!r}, which {type(like).__name__} does not know; "
                "it was written by another version"
            )
        hints = typing.get_type_hints(type(like))
        values = {k: _rebuild(getattr(like, k), v, hints[k]) for k, v in stored.items()}
        return dataclasses.replace(like, **values)
    if not isinstance(stored, list):
        return stored
    element = typing.get_args(kind)[0]
    return tuple(element(**v) if isinstance(v, dict) else v for v in stored)
