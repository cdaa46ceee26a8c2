"""Evaluation of a trained model and of the baselines beside it."""

from pathlib import Path
from typing import Any

from jaxrec_diff import config
from jaxrec_diff.batches import batcher
from jaxrec_diff.config.stored import SCHEMA
from jaxrec_diff.evaluation import baselines, evaluator, metrics, sampled, types
from jaxrec_diff.experiments import provenance, restore
from jaxrec_diff.experiments import run as experiments_run
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.models import protocols, registry
from jaxrec_diff.models.contract import Model
from jaxrec_diff.ops import ragged, streams


def reevaluate(
    prepared: Prepared, workdir: Path, split: str
) -> tuple[list[types.Evaluation], dict[str, dict[str, float]]]:
    """Evaluates the best checkpoint of a workdir: one Evaluation a seed, and the baselines."""
    prepared, model, params, state = restore.restore(prepared, workdir)
    experiment = prepared.experiment
    rules = evaluator.rules_of(experiment.eval, registry.system(experiment.model).official)
    run = split_evaluator(prepared, model, split, rules, diagnose=True)
    runs = evaluator.over_seeds(run, params, state, experiment.seed, experiment.eval.seeds)
    return runs, _baselines(prepared, split, rules, tuned(prepared))


def evaluation(
    prepared: Prepared, workdir: Path, split: str
) -> tuple[dict[str, Any], types.Evaluation]:
    """What `bin/evaluate` writes of the best checkpoint, and the values of every user.

    Raises:
      ValueError: on a split that is neither valid nor test.
    """
    if split not in ("valid", "test"):
        raise ValueError(f"split must be valid or test, got {split!r}")
    dataset, experiment = prepared.dataset, prepared.experiment
    runs, beside = reevaluate(prepared, workdir, split)
    found = evaluator.mean_over_seeds(runs)
    results = {
        "schema": SCHEMA,
        "model": prepared.name,
        "dataset": dataset.name,
        "split": split,
        "protocol": experiment.eval.protocol,
        "sampler": config.to_json(experiment)["model"].get("sampler", {}),
        "seeds": experiment.eval.seeds,
        "num_users": len(next(iter(found.per_user.values()))),
        "metrics": found.metrics,
        "spread": evaluator.spread(runs),
        "controls": beside,
        "optimum": experiments_run.optimum_of(
            prepared, {"valid": dataset.valid, "test": dataset.test}[split]
        ),
        "diagnostics": found.diagnostics,
        "data_hash": dataset.card["hash"],
    } | provenance.provenance(prepared)
    return results, found


def evaluate_split(prepared: Prepared, params: Any, state: Any, split: str) -> types.Evaluation:
    """One draw of a model under the settings of `prepared`, which may differ from a run's."""
    rules = evaluator.rules_of(
        prepared.experiment.eval, registry.system(prepared.experiment.model).official
    )
    run = split_evaluator(prepared, experiments_run.build(prepared), split, rules)
    return evaluator.over_seeds(run, params, state, prepared.experiment.seed, 1)[0]


def placed_split(prepared: Prepared, split: str, rules) -> types.Split:
    dataset, feed = prepared.dataset, experiments_run.feed_of(prepared)
    slices = {"valid": dataset.valid, "test": dataset.test}[split]
    rows, groups = feed.splits[split], feed.groups.get(split, ())
    return evaluator.to_device(slices, rows, feed.query, prepared.mesh, rules, groups)


def split_evaluator(prepared: Prepared, model: Model, split: str, rules, *, diagnose: bool = False):
    dataset = prepared.dataset
    return evaluator.evaluator(
        model,
        placed_split(prepared, split, rules),
        prepared.mesh,
        prepared.experiment.eval,
        rules,
        dataset.train_counts,
        num_users=dataset.num_users,
        diagnose=diagnose,
    )


def groups(prepared: Prepared, params: Any, state: Any, found: types.Evaluation) -> dict[str, Any]:
    """Figures by the length of the history, among all items and among drawn ones, or {}."""
    experiment, dataset = prepared.experiment, prepared.dataset
    count, test = experiment.eval.candidates, dataset.test
    if count == 0:
        return {}
    rows = len(next(iter(found.per_user.values())))
    lengths = (test.end - test.start)[:rows]
    kept = {name: found.per_user[name] for name in metrics.grouped(found.per_user)}
    run = sampled.evaluator(
        experiments_run.build(prepared),
        placed_split(prepared, "test", protocols.HONEST),
        sampled.draw(test, dataset.num_items, count),
        ks=experiment.eval.ks,
        batch_size=experiment.eval.batch_size,
    )
    key = streams.evaluation(experiment.seed)
    drawn = run(params, state, key)
    return {
        "full": sampled.by_length(kept, lengths),
        f"among_{count + 1}": sampled.by_length(drawn, test.end - test.start),
    }


def tuned(prepared: Prepared) -> dict[str, baselines.Tuned]:
    """The baselines that have settings, tuned under the run's protocol."""
    experiment, dataset = prepared.experiment, prepared.dataset
    rows = None if dataset.user_items is None else batcher.chosen(dataset.user_items)
    if rows is None:  # histories without users: every row teaches, its answer too
        train = dataset.train
        rows = ragged.Ragged(train.items, train.start, train.stop, train.stop)
    return baselines.tune(
        rows,
        experiments_run.scored_by(prepared, "valid"),
        dataset.valid,
        dataset.train_counts,
        experiment.eval,
        evaluator.rules_of(experiment.eval, registry.system(experiment.model).official),
    )


def _baselines(prepared: Prepared, split: str, rules, tuned: dict[str, baselines.Tuned]):
    return baselines.means(
        baselines_per_user(prepared, split, rules, tuned),
        prepared.experiment.eval,
        rules,
        prepared.dataset.num_users,
        tuned,
    )


def baselines_per_user(prepared: Prepared, split: str, rules, tuned: dict[str, baselines.Tuned]):
    dataset = prepared.dataset
    return baselines.per_user(
        dataset.train,
        {"valid": dataset.valid, "test": dataset.test}[split],
        dataset.train_counts,
        prepared.experiment.eval,
        rules,
        tuned,
        experiments_run.scored_by(prepared, split),
    )
