"""An experiment as frozen dataclasses."""

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from jaxrec_diff import validation
from jaxrec_diff.config import mesh
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.evaluation.config import EvalConfig
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
    mesh: str = ""
    """data:4,model:2 splits batches over 4 groups of 2 devices, and tables within each; by default
    all devices share the batches."""

    def __post_init__(self) -> None:
        validation.at_least("seed", self.seed, 0)
        validation.at_least("devices", self.devices, 0)
        model = mesh.parse(self.mesh).get("model", 1)
        if self.parallel == "pmap" and model > 1:
            raise ValueError(
                f"parallel=pmap has no axis to cut tables along, but mesh={self.mesh} asks for "
                f"{model} parts; parallel=jit has one"
            )


# What changes no figure of a model, but what stands beside it or how it is computed.
NO_FIGURE = (
    "data.resident",
    "eval.track_test",
    "eval.controls",
    "eval.control_trials",
    "eval.control_minutes",
    "eval.shuffles",
    "eval.diffuses",
    "log.tensorboard",
    "log.wandb",
    "parallel",
    "devices",
    "mesh",
)
# What may differ between a run and its continuation: it changes no number up to the stopping point.
RUN_CONTROL = (*NO_FIGURE, "train.num_epochs", "train.patience", "eval.seeds")
