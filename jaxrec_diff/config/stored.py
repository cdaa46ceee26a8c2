"""Settings as plain values in a file, and the version of what a workdir holds."""

import dataclasses
import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxrec_diff.config import values
from jaxrec_diff.config.experiment import RUN_CONTROL, Experiment

# Of config.json, results.json, search.json and vocab.npz. It rises where a file of before would be
# misread: a field that was renamed, or is gone, or means something else. A new field does not raise
# it: its default is what was done before it. Files without a number are read as those of schema 1,
# which they are but for the number.
SCHEMA = 1


class UnknownField(ValueError):
    """A stored field that this version does not have."""


def check_schema(kept: Any, path: Path) -> None:
    """Refuses what no version wrote, and what a later one did.

    Args:
      kept: what the file holds, a mapping.
      path: of the file.

    Raises:
      ValueError: naming its version and the latest that can be read.
    """
    if not isinstance(kept, Mapping):
        raise ValueError(f"{path} holds no settings or results by name; take another file")
    found = kept.get("schema", SCHEMA)
    if not str(found).isdigit() or not 1 <= int(found) <= SCHEMA:
        raise ValueError(
            f"{path} has schema {found}, and this version reads up to {SCHEMA}; use the version of "
            "jaxrec_diff that wrote it, or another folder"
        )


def read_json(path: Path, instead: str = "take another file") -> Any:
    """What a json file holds.

    Args:
      path: of the file.
      instead: what a user can do without it.

    Raises:
      ValueError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        raise ValueError(f"{path} cannot be read as json; {instead}") from None


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Nested plain dicts, as `config.json` holds them."""
    return json.loads(json.dumps(dataclasses.asdict(experiment)))


def from_json(experiment: Experiment, kept: Mapping[str, Any]) -> Experiment:
    """The experiment that `to_json` wrote; `experiment` gives the types.

    A field that is not there takes its type's default, whatever `experiment` has.

    Raises:
      UnknownField: naming a field that the types do not have.
    """
    return _rebuild(experiment, kept)


def completed(kept: Any, experiment: Experiment) -> Any:
    """What `config.json` holds, with the fields that it was written before at their defaults.

    Settings of other types than those of `experiment` stay as they are; `difference` finds one.
    """
    fields = {entry.name for entry in dataclasses.fields(experiment)}
    try:
        known = from_json(experiment, {k: v for k, v in kept.items() if k in fields})
    except (AttributeError, TypeError, ValueError):
        return kept
    return kept | to_json(known)


def difference(
    stored: dict[str, Any], wanted: dict[str, Any], free: tuple[str, ...] = RUN_CONTROL
) -> str | None:
    """The first field that differs and is not `free` to, `train.batch_size: 256 there, 512 here`,
    or None."""
    old, new = dict(flattened(stored)), dict(flattened(wanted))
    for name in sorted((old.keys() | new.keys()) - {"schema"}):
        if name not in free and old.get(name) != new.get(name):
            return f"{name}: {old.get(name)} there, {new.get(name)} here"
    return None


def flattened(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Stored settings by dotted name."""
    if not isinstance(value, dict):
        yield prefix.rstrip("."), value
        return
    for name, item in value.items():
        yield from flattened(item, f"{prefix}{name}.")


def _rebuild(like: Any, kept: Any, kind: Any = None) -> Any:
    if dataclasses.is_dataclass(like) and not isinstance(like, type) and kept is not None:
        known = {entry.name for entry in dataclasses.fields(like)}
        unknown = [name for name in kept if name not in known]
        if unknown:
            raise UnknownField(
                f"holds {unknown[0]!r}, which no setting is called: it was written by another "
                "version, which alone can read it"
            )
        hints = typing.get_type_hints(type(like))
        fields = {k: _rebuild(getattr(like, k), v, hints[k]) for k, v in kept.items()}
        return type(like)(**fields)
    element: Any = (*typing.get_args(kind), None)[0]
    if isinstance(kept, list) and hasattr(element, "__dataclass_fields__"):
        return tuple(element(**v) for v in kept)
    if kind is None or isinstance(kind, typing.TypeVar):
        return kept
    try:
        return values.checked(kept, kind)
    except ValueError:
        raise ValueError(f"{kept!r} should be {values.described(kind)}") from None
