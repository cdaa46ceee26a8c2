"""Matrix factorisation by BPR (arXiv:1205.2618): LightGCN without a step along the graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxrec_diff import validation
from jaxrec_diff.batches.triplets import TRIPLETS
from jaxrec_diff.models import lightgcn
from jaxrec_diff.models.contract import DataSpec, Model
from jaxrec_diff.models.protocols import MATRIX_SCRIPT, Protocol
from jaxrec_diff.models.registry import System


@dataclass(frozen=True, kw_only=True)
class MFConfig:
    """Settings of matrix factorisation."""

    width: int = 64
    """Size d of embeddings."""
    l2: float = 1e-4
    """Weight of half the squared length of a pair's three embeddings."""
    init_scale: float = 0.1
    """Deviation of the initial embeddings."""

    def __post_init__(self) -> None:
        validation.at_least("model.width", self.width, 1)
        validation.at_least("model.l2", self.l2, 0)
        validation.above("model.init-scale", self.init_scale, 0, 0.1)


def build(
    config: MFConfig,
    spec: DataSpec,
    *,
    axis_name: str | None = None,
    protocol: Protocol = "honest",
) -> Model:
    """Matrix factorisation as pure functions; see `jaxrec_diff.models.lightgcn.build`."""
    return lightgcn.build(_flat(config), spec, axis_name=axis_name, protocol=protocol)


def export(config: MFConfig, spec: DataSpec, params: Any, state: Any) -> dict[str, np.ndarray]:
    """ "users" f32[U, D] and "items" f32[I, D] for later stages, and both again as "ego_..."."""
    return lightgcn.export(_flat(config), spec, params, state)


def _flat(config: MFConfig) -> lightgcn.LightGCNConfig:
    return lightgcn.LightGCNConfig(
        width=config.width, l2=config.l2, init_scale=config.init_scale, layers=0
    )


SYSTEM = System(
    config=MFConfig,
    build=build,
    official=MATRIX_SCRIPT,
    input=TRIPLETS,
    export=export,
    exports=lightgcn.SYSTEM.exports,
)
