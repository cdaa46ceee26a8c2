"""What picks the checkpoint of a phase: its figure on the validation split."""

from collections.abc import Callable
from typing import Any

from jaxrec_diff import layout
from jaxrec_diff.config import Experiment, Phase
from jaxrec_diff.evaluation import config, evaluator, held_out, metrics
from jaxrec_diff.evaluation import rank as ranking
from jaxrec_diff.experiments import judging, phases
from jaxrec_diff.experiments.phases import BACKBONE, PhaseRun
from jaxrec_diff.ops import streams
from jaxrec_diff.training import loop


def metric_of(experiment: Experiment, phase: str = "") -> str:
    """The validation metric that picks the checkpoint of a phase, by default of the last one.

    A generator's run ends in its backbone again.
    """
    return _settings_of(experiment, phase).eval.metric


def patience_of(experiment: Experiment, phase: str = "") -> int:
    """Evaluations without gain that end a phase, 0 if none do."""
    return _settings_of(experiment, phase).train.patience


def _settings_of(experiment: Experiment, phase: str) -> Experiment | Phase:
    backbone = experiment.backbone
    ends_in_it = phase == "" and phases.generates(experiment)
    own = backbone is None or not (phase == BACKBONE or ends_in_it)
    return experiment if own else backbone


def judge(phase: PhaseRun) -> Callable[[Any, Any], tuple[float, dict[str, float]]]:
    """(params, state) -> the score, higher is better, and the figures of an epoch to log."""
    settings, batcher, model = phase.settings, phase.batcher, phases.model_of(phase)
    rules = phases.rules_of(phase)
    splits = ("valid", "test") if settings.eval.track_test else ("valid",)
    rank = evaluator.evaluate_splits(
        model,
        {split: judging.split_of(phase, split, rules) for split in splits},
        batcher.shared,
        batcher.query,
        phase.mesh,
        settings.eval,
        rules,
        phase.dataset.train_counts,
        num_users=phase.dataset.num_users,
        diagnose=False,
    )
    key = streams.evaluation(settings.seed)
    loss_of = None
    if settings.eval.metric == config.LOSS:
        loss_of = held_out.held_out_loss(
            model, batcher.example, phase.dataset.valid, key, settings.train.batch_size
        )

    def score(params, state):
        found = rank(params, state, key)
        figures = {
            f"{split}/{name}": value
            for split in splits
            for name, value in found[split].metrics.items()
        }
        rows = ranking.item_rows(layout.whole(model.head(params, state)))
        trained = phase.dataset.train_counts > 0
        if rows is not None:
            figures["item_spread"] = metrics.item_spread(rows, trained)
        if loss_of is not None:
            figures["valid/loss"] = loss_of(params, state)
        value = figures[f"valid/{settings.eval.metric}"]
        if loss_of is None and rules.decimals is not None:
            value = round(value, rules.decimals)
        return config.sign(settings.eval.metric) * value, figures

    return score


def best_valid(phase: PhaseRun, fitted: loop.Fit) -> float:
    """The best validation metric; one that is better when lower is minus its score."""
    return config.sign(phase.settings.eval.metric) * fitted.best_score


def describe(phase: PhaseRun, fitted: loop.Fit) -> str:
    """The checkpoint that was picked, in words."""
    metric = phase.settings.eval.metric
    return f"valid {metric} {best_valid(phase, fitted):.4f} at step {fitted.best_step}"
