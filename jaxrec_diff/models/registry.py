"""What the package knows of a model: its module's `SYSTEM`, found through its settings."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxrec_diff.batches.input import Input
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import Rules
from jaxrec_diff.models.readers import Reader


class ItemTable(NamedTuple):
    """The parameter `items`, whose row j is item j and row 0 padding: vectors may be its rows."""

    deviation: Callable[[Any], float]  # settings -> that of its initial rows
    grows: bool = True
    """Whether it ends in the last item and nothing else has a row an item, so that a trained model
    takes further ones."""


class System(NamedTuple):
    """A model, what it reads, and how its authors evaluate it.

    Every module of a model declares one as `SYSTEM`, and nothing lists them.
    """

    config: type  # the class of its settings, which stands in the same module
    build: Callable[..., Model]  # config, DataSpec, axis_name=, protocol= -> Model
    official: Rules
    input: Input | Callable[[Any], Input]
    """What its examples are, or how its settings say it; see `jaxrec_diff.batches`."""
    official_differs: bool = True
    """Whether `protocol="official"` builds another model; where it only ranks by other rules, one
    draw of a model's points serves both protocols."""
    generates: bool = False
    """It makes items that are put ahead of sequences, on which its backbone is trained once more at
    the end; its points are ranked for the items that came before held-out users' histories."""
    export: Callable[..., dict[str, np.ndarray]] | None = None
    """config, DataSpec, params, state -> arrays for a later phase, `exports` by name."""
    exports: tuple[str, ...] = ()
    requires: tuple[tuple[str, ...], ...] = ()
    """Arrays that `DataSpec.exports` must hold, of each tuple one at least: "users" f32[U, D],
    "items" f32[I, D], "clusters" i32[I]."""
    optional_when: Callable[[Any], bool] = lambda config: False
    """Whether settings do without what the system `requires`."""
    accepts_buckets: Callable[[Any], bool] = lambda config: False
    """Whether settings let `seq` be a tuple of batches of different lengths
    (`types.over_lengths`)."""
    walks: Callable[[Any], Any] = lambda config: config
    """Settings -> those of the same trained network whose lists are the end of its chain."""
    drawn_by: Callable[[Any], str | None] = lambda config: None
    """The flag that makes its loss read no rows of tables but those of its batch and of drawn
    negatives, so that `train.optimizer` may update these alone; "" where it does, None if none."""
    item_table: ItemTable | None = None
    """Where vectors of items go; None where a system has no such table."""
    reader: Callable[..., Reader] | None = None
    """config, DataSpec, exports -> the trained network as a function of embedded items."""
    check: Callable[..., None] | None = None
    """config, DataSpec, names of what a backbone will export, its settings -> ValueError where that
    cannot do."""


def system(config: Any) -> System:
    """The system that a settings object belongs to.

    Raises:
      ValueError: if the module of its class declares none of that class.
    """
    kind = type(config)
    found = getattr(sys.modules.get(kind.__module__), "SYSTEM", None)
    if not isinstance(found, System) or found.config is not kind:
        raise ValueError(
            f"{kind.__name__} is no model's settings: a model's module declares "
            f"SYSTEM = System(config={kind.__name__}, ...), and {kind.__module__} does not"
        )
    return found


def input_of(config: Any) -> Input:
    """What a system reads under its settings."""
    chosen = system(config).input
    return chosen if isinstance(chosen, Input) else chosen(config)
