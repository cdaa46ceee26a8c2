"""The systems by their settings: a plain dict, filled here and nowhere else."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrec_diff.models import (
    bert4rec,
    ddrm,
    diffrec,
    diffrec2,
    diffuasr,
    diffurec,
    dimerec,
    diqdiff,
    dreamrec,
    ldiffrec,
    lightgcn,
    mf,
    sasrec,
)
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import (
    DIFFREC_SCRIPT,
    DREAMREC_SCRIPT,
    HISTORIES_COMPETE,
    MATRIX_SCRIPT,
    Rules,
)
from jaxrec_diff.models.readers import Reader

Feed = Literal["sequences", "windows", "interactions", "pairs", "user_pairs", "walks", "prefixes"]


class System(NamedTuple):
    """A model, what it reads, and how its authors evaluate it."""

    build: Callable[..., Model]  # config, DataSpec, axis_name=, protocol= -> Model
    official: Rules
    feed: Feed | Callable[[Any], Feed] = "sequences"
    """What its examples are, or how its settings say it; see `jaxrec_diff.batches`."""
    export: Callable[..., dict[str, np.ndarray]] | None = None
    """config, DataSpec, params, state -> arrays for a later stage, `exports` by name."""
    exports: tuple[str, ...] = ()
    needs: tuple[tuple[str, ...], ...] = ()
    """Arrays that `DataSpec.exports` must hold, of each tuple one at least: "users" f32[U, D],
    "items" f32[I, D], "clusters" i32[I]."""
    spared: Callable[[Any], bool] = lambda config: False
    """Whether settings do without what the system `needs`."""
    several_lengths: Callable[[Any], bool] = lambda config: False
    """Whether settings let `seq` be a tuple of batches of different lengths
    (`types.over_lengths`)."""
    reader: Callable[..., Reader] | None = None
    """config, DataSpec, exports -> the trained network as a function of embedded items."""
    check: Callable[..., None] | None = None
    """config, DataSpec, names of what a backbone will export -> ValueError where that cannot do."""


_TABLES = ("users", "items", "ego_users", "ego_items")


def _always(config: Any) -> bool:
    del config
    return True


SYSTEMS: dict[type, System] = {
    dreamrec.DreamRecConfig: System(dreamrec.build, DREAMREC_SCRIPT),
    dimerec.DimeRecConfig: System(dimerec.build, DREAMREC_SCRIPT),
    mf.MFConfig: System(mf.build, MATRIX_SCRIPT, "pairs", mf.export, _TABLES),
    lightgcn.LightGCNConfig: System(
        lightgcn.build, MATRIX_SCRIPT, "pairs", lightgcn.export, _TABLES
    ),
    diffrec2.DiffRec2Config: System(diffrec2.build, HISTORIES_COMPETE, several_lengths=_always),
    diffrec.DiffRecConfig: System(diffrec.build, DIFFREC_SCRIPT, "interactions"),
    ldiffrec.LDiffRecConfig: System(
        ldiffrec.build,
        DIFFREC_SCRIPT,
        "interactions",
        needs=(("items", "clusters"),),
        spared=lambda config: config.clusters == 1,
    ),
    ddrm.DDRMConfig: System(
        ddrm.build,
        MATRIX_SCRIPT,
        lambda config: "user_pairs" if config.triples == "user" else "pairs",
        needs=(("users",), ("items",)),
    ),
    diffurec.DiffuRecConfig: System(diffurec.build, HISTORIES_COMPETE, several_lengths=_always),
    sasrec.SASRecConfig: System(
        sasrec.build,
        HISTORIES_COMPETE,
        "windows",
        sasrec.export,
        ("items",),
        several_lengths=_always,
        reader=sasrec.reader,
    ),
    bert4rec.Bert4RecConfig: System(
        bert4rec.build,
        HISTORIES_COMPETE,
        "walks",
        bert4rec.export,
        ("items",),
        several_lengths=lambda config: config.pad_key_mask,
        reader=bert4rec.reader,
    ),
    # It generates; its points are ranked for the items that came before held-out users' histories.
    diffuasr.DiffuASRConfig: System(
        diffuasr.build, HISTORIES_COMPETE, "prefixes", check=diffuasr.check
    ),
    diqdiff.DiQDiffConfig: System(diqdiff.build, HISTORIES_COMPETE),
}


def system(config: Any) -> System:
    """The system that a settings object belongs to.

    Raises:
      ValueError: if it belongs to none.
    """
    if type(config) not in SYSTEMS:
        names = ", ".join(known.__name__ for known in SYSTEMS)
        raise ValueError(f"{type(config).__name__} is no model's settings; there are {names}")
    return SYSTEMS[type(config)]


def feed(config: Any) -> Feed:
    """The kind of input that a system reads under its settings."""
    chosen = system(config).feed
    return chosen if isinstance(chosen, str) else chosen(config)
