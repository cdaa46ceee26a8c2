"""Settings of the train loop."""

import re
from dataclasses import dataclass
from typing import Literal

from jaxrec_diff import validation


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is different for the parameters whose path (`a/b/kernel`) matches a pattern."""

    pattern: str
    """Regular expression, searched anywhere in the path; the first rule that matches counts."""
    learning_rate: float = 1.0
    """Factor on the learning rate; 0 freezes."""
    weight_decay: float | None = None
    """Replaces the weight decay."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"train.rules pattern {self.pattern!r} is no regular expression: {error}"
            ) from None
        validation.at_least("train.rules learning-rate", self.learning_rate, 0)
        if self.weight_decay is not None:
            validation.at_least("train.rules weight-decay", self.weight_decay, 0)


BY_ROW = ("lazy_adam", "row_adagrad")
"""Optimizers that update only the rows of tables that a batch reads."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How parameters are found; nothing here depends on the model."""

    batch_size: int = 256
    """Examples an update, over all devices."""
    learning_rate: float = 1e-3
    """Step size."""
    optimizer: Literal["adam", "adamw", "sgd", "lazy_adam", "row_adagrad", "adam_l2"] = "adam"
    """Update rule. For losses with drawn negatives, on large catalogues: lazy_adam is Adam on the
    rows that a batch reads, row_adagrad keeps one number a row instead of Adam's two a parameter.
    adam_l2 adds the decay to the gradient that Adam scales, as PyTorch's Adam does; adamw takes it
    off beside."""
    weight_decay: float = 0.0
    """Decay, adamw's or adam_l2's."""
    clip_norm: float = 0.0
    """Clip gradients to this global norm; 0 is off."""
    schedule: Literal["constant", "cosine", "linear", "step"] = "constant"
    """Learning rate over num_epochs, after the warm-up; step multiplies it by decay_factor after
    every decay_epochs."""
    decay_epochs: int = 100
    """Epochs between two falls of the step schedule."""
    decay_factor: float = 0.1
    """What the step schedule multiplies by."""
    warmup_steps: int = 0
    """Updates over which the learning rate rises from zero."""
    ema_decay: float = 0.0
    """Evaluate a moving average of the parameters with this decay; 0 is off."""
    num_epochs: int = 1000
    """Upper limit of passes over the data."""
    eval_every: int = 1
    """Epochs between two evaluations on the validation split."""
    patience: int = 10
    """Evaluations without a better validation metric before training stops; 0 never stops."""
    epoch_sampler: Literal["perm", "whole", "iid"] = "perm"
    """perm: a fresh permutation each epoch, in full batches; whole: with the rest as a last,
    smaller batch; iid: every batch is drawn by itself, without replacement inside it, as some
    released scripts do."""
    rules: tuple[Rule, ...] = ()
    """Exceptions by parameter path."""

    def __post_init__(self) -> None:
        validation.at_least("train.batch-size", self.batch_size, 1)
        validation.above("train.learning-rate", self.learning_rate, 0, 1e-3)
        validation.at_least("train.weight-decay", self.weight_decay, 0)
        if self.weight_decay > 0 and self.optimizer not in ("adamw", "adam_l2"):
            raise ValueError(
                f"train.weight-decay={self.weight_decay:g} needs --train.optimizer=adamw, got "
                f"{self.optimizer}"
            )
        if self.ema_decay > 0 and self.optimizer in BY_ROW:
            raise ValueError(
                f"train.ema-decay={self.ema_decay:g} averages whole tables, which "
                f"{self.optimizer} leaves alone; take --train.optimizer=adam or ema-decay 0"
            )
        validation.at_least("train.clip-norm", self.clip_norm, 0)
        validation.at_least("train.warmup-steps", self.warmup_steps, 0)
        validation.at_least("train.decay-epochs", self.decay_epochs, 1)
        validation.above("train.decay-factor", self.decay_factor, 0, 0.1)
        validation.within("train.ema-decay", self.ema_decay, 0, 0.999999)
        validation.at_least("train.num-epochs", self.num_epochs, 1)
        validation.at_least("train.eval-every", self.eval_every, 1)
        validation.at_least("train.patience", self.patience, 0)
