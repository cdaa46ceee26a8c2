"""Dotted flags, `--train.batch-size=512`, and dotted settings of Python, over an experiment."""

import dataclasses
import io
import operator
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Annotated, Any

import numpy as np

from jaxrec_diff.config import presets, values
from jaxrec_diff.config.experiment import Experiment, Phase

# Fields that the bare flag --backbone sets.
_NO_FLAGS = ("backbone", "backbone.preset")


def parse(experiment: Experiment, flags: Sequence[str]) -> Experiment:
    """Applies dotted flags, `--train.batch-size=512` or `--train.batch-size 512`.

    Raises:
      ValueError: on an unknown, repeated or ill-typed flag, in one sentence.
    """
    hints = dict(_leaves(experiment))
    changes: dict[str, Any] = {}
    for name, text in _pairs(flags):
        hint = _hint(hints, name, "--")
        if name in changes:
            raise ValueError(f"--{name} is given twice; give it once")
        if any(dataclasses.is_dataclass(part) for part in typing.get_args(hint)):
            raise ValueError(
                f"--{name} takes no {text!r}: it holds records, which a preset or a json file of "
                "settings can give (--preset=FILE.json)"
            )
        changes[name] = _fitting(values.from_text, text, hint, f"--{name}")
    return _changed(experiment, changes)


def configure(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Applies dotted settings with typed values, {"train.batch_size": 512}.

    Raises:
      ValueError: on an unknown field or a value of another type, in one sentence.
    """
    hints = {name.replace("-", "_"): hint for name, hint in _leaves(experiment)}
    changes: dict[str, Any] = {}
    for spelled, value in settings.items():
        name = spelled.replace("-", "_")
        hint = _hint(hints, name, "")
        if name in changes:
            raise ValueError(f"{name} is given twice; give it once")
        changes[name] = _fitting(values.checked, value, hint, name)
    return _changed(experiment, changes)


def flag_names(experiment: Experiment) -> list[str]:
    """Names of the dotted flags that `parse` takes."""
    return [name for name, _ in _leaves(experiment)]


def field_values(experiment: Experiment) -> dict[str, Any]:
    """The dotted fields that `configure` takes, with the values that they have."""
    names = [flag.replace("-", "_") for flag in flag_names(experiment)]
    return {name: operator.attrgetter(name)(experiment) for name in names}


def flag_words(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """The dotted flags that `parse` takes, and for each the words it can be, or ()."""
    return {name: values.choices(hint) for name, hint in _leaves(experiment)}


def given(flags: Sequence[str]) -> tuple[str, ...]:
    """Names of the fields that dotted flags set."""
    return tuple(name for name, _ in _pairs(flags))


def show_help(experiment: Experiment, usage: str) -> str:
    """The generated list of dotted flags with their defaults."""
    import tyro  # here: only this list needs it

    generic: Any = Experiment
    backbone: Any = Annotated[None, tyro.conf.Suppress]
    if experiment.backbone is not None:
        phase_of: Any = Phase
        backbone = phase_of[type(experiment.backbone.model)]
    out = io.StringIO()
    with redirect_stdout(out):
        try:
            tyro.cli(
                generic[type(experiment.model), backbone],
                default=experiment,
                args=["--help"],
                prog=usage,
                description=f"{usage} --train.learning-rate=0.003",
                config=(tyro.conf.FlagConversionOff,),
            )
        except SystemExit:
            pass
    return out.getvalue()


def _pairs(flags: Sequence[str]) -> list[tuple[str, str]]:
    """(name, text) of `--name=text` and `--name text`."""
    pairs, rest = [], list(flags)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise ValueError(f"expected a flag such as --train.batch-size=256, got {word!r}")
        name, equals, text = word[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ValueError(f"--{name} needs a value: --{name}=VALUE")
            text = rest.pop(0)
        pairs.append((name.replace("_", "-"), text))
    return pairs


def _hint(hints: Mapping[str, Any], name: str, prefix: str) -> Any:
    if name not in hints:
        what = "flag" if prefix else "setting"
        others = _models_with(name)
        near = (
            f"it is of {', '.join(others)}, not of this model"
            if others
            else presets.suggest(name, list(hints), prefix)
        )
        raise ValueError(f"unknown {what} {prefix}{name}; {near}")
    return hints[name]


def _models_with(name: str) -> list[str]:
    """The presets whose own model has a field."""
    flag = name.replace("_", "-")
    if not flag.startswith("model."):
        return []
    return [
        each for each in presets.preset_names() if flag in flag_names(presets.load(each).default)
    ]


def _fitting(convert: Callable[[Any, Any], Any], value: Any, hint: Any, name: str) -> Any:
    try:
        return convert(value, hint)
    except ValueError:
        if isinstance(value, np.generic):
            value = value.item()  # as it was written
        raise ValueError(f"{name} cannot be {value!r}; it is {values.described(hint)}") from None


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Fields that are no groups of fields themselves, by dotted name, with their hints."""
    hints = typing.get_type_hints(type(value))
    for entry in dataclasses.fields(value):
        name, item = prefix + entry.name.replace("_", "-"), getattr(value, entry.name)
        if dataclasses.is_dataclass(item):
            yield from _leaves(item, name + ".")
        elif name not in _NO_FLAGS:
            yield name, hints[entry.name]


def _changed(experiment: Experiment, changes: Mapping[str, Any]) -> Experiment:
    made = _replaced(experiment, changes)
    # Arrays that are given need no phase that would make them.
    return dataclasses.replace(made, backbone=None) if made.embeddings else made


def _replaced(value: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with fields changed by dotted name; those of a group all at once, as they may only go
    together."""
    here: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, new in changes.items():
        first, _, rest = name.partition(".")
        if rest:
            inner.setdefault(first.replace("-", "_"), {})[rest] = new
        else:
            here[first.replace("-", "_")] = new
    groups = {name: _replaced(getattr(value, name), part) for name, part in inner.items()}
    return dataclasses.replace(value, **here, **groups)
