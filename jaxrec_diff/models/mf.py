"""Matrix factorisation by BPR (arXiv:1205.2618): LightGCN without a step along the graph.

All functions of parts are LightGCN's; only the settings are its own.

>>> import jax, jax.numpy as jnp
>>> from jaxrec_diff.batches.types import Triplets
>>> made = parts(MFConfig(width=4), DataSpec(2, num_items=5, max_len=2))
>>> rows = (jnp.array(row) for row in ([0, 1], [1, 3], [4, 5]))
>>> example = Triplets(*rows, weight=jnp.ones(2), row_id=jnp.arange(2))
>>> params, state = init(made, jax.random.key(0), example)
>>> value, aux = loss(made, params, state, jax.random.key(1), example)
>>> value.shape, bool(value > 0), sorted(aux.metrics)
((), True, ['bpr', 'loss'])
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxrec_diff import validation
from jaxrec_diff.batches.triplets import TRIPLETS
from jaxrec_diff.models import lightgcn
from jaxrec_diff.models.contract import Compact, DataSpec, Model, Table
from jaxrec_diff.models.lightgcn import Parts
from jaxrec_diff.models.lightgcn import head as head
from jaxrec_diff.models.lightgcn import init as init
from jaxrec_diff.models.lightgcn import loss as loss
from jaxrec_diff.models.lightgcn import sample as sample
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """Settings of matrix factorisation."""

    width: int = 64
    """Size d of embeddings."""
    l2: float = 1e-4
    """Weight of half the squared length of a pair's three embeddings."""
    negatives: Literal["uniform", "popularity", "in_batch"] = "uniform"
    """A pair's other item: drawn uniformly from those that are not the user's; by popularity from
    all, or from the items of the batch's rows, corrected by log Q."""
    init_scale: float = 0.1
    """Deviation of the initial embeddings."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 1)
        validation.at_least("model.l2", self.l2, 0)
        validation.above("model.init-scale", self.init_scale, 0, 0.1)


def parts(config: MFConfig, spec: DataSpec, *, axis_name: str | None = None) -> Parts:
    """What LightGCN's functions need to be matrix factorisation's; arguments as of `build`."""
    return lightgcn.parts(_flat(config), spec, axis_name=axis_name)


def build(
    config: MFConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """Matrix factorisation as pure functions; see `jaxrec_diff.models.lightgcn.build`."""
    model = lightgcn.build(_flat(config), spec, axis_name=axis_name, protocol=protocol)
    tables = Table("items", padded=False), Table("users", of="users", padded=False)
    return model._replace(compact=Compact(tables, lambda rows: model.loss))


def export(config: MFConfig, spec: DataSpec, params: Any, state: Any) -> dict[str, np.ndarray]:
    """ "users" f32[U, D] and "items" f32[I, D] for later phases, and both again as "ego_..."."""
    return lightgcn.export(_flat(config), spec, params, state)


def _flat(config: MFConfig) -> lightgcn.LightGCNConfig:
    return lightgcn.LightGCNConfig(
        width=config.width,
        l2=config.l2,
        init_scale=config.init_scale,
        negatives=config.negatives,
        layers=0,
    )


SYSTEM = System(
    config=MFConfig,
    build=build,
    official=MATRIX_SCRIPT,
    official_differs=False,
    input=TRIPLETS,
    export=export,
    exports=lightgcn.SYSTEM.exports,
    drawn_by=lambda config: "",
)
