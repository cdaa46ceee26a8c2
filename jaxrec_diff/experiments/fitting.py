"""The training of one phase: judged, logged, stopped by signals."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax

from jaxrec_diff.evaluation import config, evaluator, metrics
from jaxrec_diff.evaluation import held_out as evaluation_held_out
from jaxrec_diff.experiments import files, judging, run, signals, workdir
from jaxrec_diff.experiments.run import Prepared, Say
from jaxrec_diff.experiments.signals import Interrupted
from jaxrec_diff.models import registry
from jaxrec_diff.ops import streams
from jaxrec_diff.training import loop, tracking
from jaxrec_diff.training import progress as training_progress

# Share of the initial spread of item rows below which a run warns of their collapse.
_LEAST_SPREAD = 0.5


class Fitting(NamedTuple):
    """What the driver of stages hands to `_fit`."""

    prepared: Prepared
    say: Say
    on_progress: Callable[[training_progress.Progress], None]


def fit(fitting: Fitting, folder: Path) -> loop.Fit:
    prepared = fitting.prepared
    experiment, mesh = prepared.experiment, prepared.mesh
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "metrics.jsonl"
    model, feed = run.build(prepared), run.feed_of(prepared)
    rules = evaluator.rules_of(experiment.eval, registry.system(experiment.model).official)
    splits = ("valid", "test") if experiment.eval.track_test else ("valid",)
    rank = evaluator.evaluate_splits(
        model,
        {split: judging.placed_split(prepared, split, rules) for split in splits},
        feed.shared,
        feed.query,
        mesh,
        experiment.eval,
        rules,
        prepared.dataset.train_counts,
        num_users=prepared.dataset.num_users,
        diagnose=False,
    )
    key = streams.evaluation(experiment.seed)
    held_out = None
    if experiment.eval.metric == config.LOSS:
        held_out = evaluation_held_out.held_out_loss(
            model, feed.example, prepared.dataset.valid, key, experiment.train.batch_size
        )

    def judge(params, state):
        found = rank(params, state, key)
        figures = {
            f"{split}/{name}": value
            for split in splits
            for name, value in found[split].metrics.items()
        }
        head = jax.device_get(model.head(params, state))
        trained = prepared.dataset.train_counts > 0
        figures["item_spread"] = metrics.item_spread(head.table, trained)
        if held_out is not None:
            figures["valid/loss"] = held_out(params, state)
        value = figures[f"valid/{experiment.eval.metric}"]
        if held_out is None and rules.decimals is not None:
            value = round(value, rules.decimals)
        return config.sign(experiment.eval.metric) * value, figures

    shrunk = False

    def notice(progress: training_progress.Progress) -> None:
        nonlocal shrunk
        if progress.kind == "resume":
            files.truncate_after(log, progress.step)
            fitting.say(f"resumed {folder} at step {progress.step}")
        if progress.kind == "damaged":
            fitting.say(
                f"the checkpoint of step {progress.step} is damaged; falling back to the one before"
            )
        if progress.kind == "epoch":
            line = {"step": progress.step, "epoch": progress.epoch, "time": time.time()}
            rate = {"examples_per_second": progress.examples_per_second}
            files.append_line(log, line | rate | progress.metrics)
            tell(line | rate | progress.metrics)
            left = progress.metrics.get("spread_left", 1.0)
            if left < _LEAST_SPREAD and not shrunk:
                shrunk = True
                fitting.say(
                    f"warning: trained item rows have shrunk to {left:.0%} of their initial "
                    "spread, which lowers the loss without learning; freeze them"
                )
        fitting.on_progress(progress)

    settings = workdir.stored(prepared)
    with tracking.tracker(experiment.log, log, settings) as tell, signals.signals() as caught:
        try:
            return loop.fit(
                lambda axis_name: run.build(prepared, axis_name),
                feed.train,
                feed.example,
                feed.num_examples,
                experiment.train,
                judge,
                seed=experiment.seed,
                folder=folder / "checkpoints",
                mesh=mesh,
                mode=experiment.parallel,
                on_progress=notice,
                stop_asked=lambda: bool(caught),
                order_of=feed.order,
            )
        except training_progress.Stopped:
            raise Interrupted(caught[0], folder) from None
