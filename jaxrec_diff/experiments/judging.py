"""Evaluation of a trained model and of the baselines beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff import config, layout
from jaxrec_diff.config.stored import SCHEMA
from jaxrec_diff.evaluation import baselines, evaluator, metrics, sampled
from jaxrec_diff.evaluation import lists as evaluation_lists
from jaxrec_diff.evaluation.lists import Lists
from jaxrec_diff.evaluation.types import Evaluation, Split
from jaxrec_diff.experiments import phases, provenance, restore
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models import protocols, registry
from jaxrec_diff.models.contract import Model
from jaxrec_diff.models.protocols import Protocol, Rules
from jaxrec_diff.ops import ragged, streams
from jaxrec_diff.training.state import TrainState, averaged


def evaluation(
    run: Run, workdir: Path, split: str, tell: evaluator.Tell | None = None
) -> tuple[dict[str, Any], Evaluation, dict[str, dict[str, np.ndarray]]]:
    """What `bin/evaluate` writes of the best checkpoint, and the values of every user: the model's,
    and those of each baseline (in the first process).

    Args:
      run: of the workdir, with the settings that it is to be judged under.
      workdir: what training left.
      split: "valid" or "test".
      tell: is told how many more rows are ranked; there are those of the split, a time a seed.

    Raises:
      ValueError: on a split that is neither valid nor test.
    """
    if split not in ("valid", "test"):
        raise ValueError(f"split must be valid or test, got {split!r}")
    dataset, experiment = run.dataset, run.experiment
    phase = restore.last_phase(run, workdir)
    train = restore.best_of(phase, workdir)
    draws, beside = _reevaluated(phase, train, split, tell)
    found = evaluator.mean_over_seeds(draws)
    results = {
        "schema": SCHEMA,
        "model": run.name,
        "dataset": dataset.name,
        "split": split,
        "step": int(train.step),
        "protocol": experiment.eval.protocol,
        "sampler": config.to_json(experiment)["model"].get("sampler", {}),
        "seeds": experiment.eval.seeds,
        "num_users": len(next(iter(found.per_user.values()))),
        "metrics": found.metrics,
        "spread": evaluator.spread(draws),
        "controls": beside.means,
        "control_seconds": beside.seconds,
        "optimum": phases.optimum_of(dataset, split, experiment.eval.ks),
        "diagnostics": found.diagnostics,
        "data_hash": dataset.card["hash"],
    } | provenance.provenance(run.command, run.experiment.seed, run.mesh)
    return results, found, beside.per_user


def reevaluate(
    run: Run, workdir: Path, split: str
) -> tuple[list[Evaluation], dict[str, dict[str, float]]]:
    """Evaluates the best checkpoint of a workdir: one Evaluation a seed, and the baselines."""
    phase = restore.last_phase(run, workdir)
    found, beside = _reevaluated(phase, restore.best_of(phase, workdir), split)
    return found, beside.means


class _Beside(NamedTuple):
    """The baselines beside a model."""

    means: dict[str, dict[str, float]]
    seconds: dict[str, float]  # of tuning
    per_user: dict[str, dict[str, np.ndarray]]  # {} in all processes but the first


def _reevaluated(
    phase: PhaseRun, train: TrainState, split: str, tell: evaluator.Tell | None = None
) -> tuple[list[Evaluation], _Beside]:
    found = draws(phase, averaged(train), train.state, split, diagnose=True, tell=tell)
    per_user: dict[str, dict[str, np.ndarray]] = {}

    def beside() -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        tuned = tuned_baselines(phase)
        per_user.update(baselines_per_user(phase, split, tuned))
        seconds = {name: each.seconds for name, each in tuned.items()}
        return baseline_means(phase, per_user, tuned), seconds

    means, seconds = layout.by_first(beside)
    return found, _Beside(means, seconds, per_user)


def draws(
    phase: PhaseRun,
    params: Any,
    state: Any,
    split: str,
    *,
    diagnose: bool = False,
    tell: evaluator.Tell | None = None,
) -> list[Evaluation]:
    """A model on a split, once for each of `eval.seeds` draws of its sampler."""
    rank, settings = ranker(phase, split, diagnose=diagnose, tell=tell), phase.settings
    return evaluator.over_seeds(rank, params, state, settings.seed, settings.eval.seeds)


def draws_by_protocol(
    judged: dict[Protocol, PhaseRun], params: Any, state: Any, split: str
) -> dict[Protocol, list[Evaluation]]:
    """`draws` of a phase under several protocols, diagnosed."""
    phase = next(iter(judged.values()))
    settings = phase.settings
    if registry.system(settings.model).official_differs:
        return {
            protocol: draws(each, params, state, split, diagnose=True)
            for protocol, each in judged.items()
        }
    rules: dict[str, Rules] = {protocol: phases.rules_of(each) for protocol, each in judged.items()}
    rank = evaluator.under_rules(
        phases.model_of(phase),
        {protocol: split_of(phase, split, each) for protocol, each in rules.items()},
        rules,
        phase.mesh,
        settings.eval,
        phase.dataset.train_counts,
        num_users=phase.dataset.num_users,
    )
    found = evaluator.over_seeds(rank, params, state, settings.seed, settings.eval.seeds)
    return {protocol: [draw[protocol] for draw in found] for protocol in judged}


def ranker(
    phase: PhaseRun, split: str, *, diagnose: bool = False, tell: evaluator.Tell | None = None
) -> Callable[[Any, Any, jax.Array], Evaluation]:
    """(params, state, key) -> one draw of a phase's model on a split, compiled once."""
    rules = phases.rules_of(phase)
    return evaluator.evaluator(
        phases.model_of(phase),
        split_of(phase, split, rules),
        phase.mesh,
        phase.settings.eval,
        rules,
        phase.dataset.train_counts,
        num_users=phase.dataset.num_users,
        diagnose=diagnose,
        tell=tell,
    )


def lists_of(
    phase: PhaseRun,
    split: str,
    *,
    k: int,
    model: Model | None = None,
    asked: Callable[[Split], Split] = lambda split: split,
) -> Callable[[Any, Any, jax.Array], Lists]:
    """(params, state, key) -> the lists of a phase's model on a split, and their figures.

    `model` stands in for the phase's own, and `asked` may change what it is asked.
    """
    rules = phases.rules_of(phase)
    return evaluation_lists.lists(
        phases.model_of(phase) if model is None else model,
        asked(split_of(phase, split, rules)),
        phase.mesh,
        rules,
        phase.dataset.train_counts,
        k=k,
        ks=phase.settings.eval.ks,
        batch_size=phase.settings.eval.batch_size,
        num_users=phase.dataset.num_users,
    )


def split_of(phase: PhaseRun, split: str, rules: Rules) -> Split:
    """A split of a phase to be judged."""
    rows, _ = phases.rows_of(phase.dataset, split)
    batcher = phase.batcher
    groups = batcher.groups.get(split, ())
    return evaluator.split_of(
        rows, batcher.splits[split], batcher.query, rules, groups, alone=batcher.alone
    )


def groups(phase: PhaseRun, params: Any, state: Any, found: Evaluation) -> dict[str, Any]:
    """Test figures by the length of the history, among all items and among drawn ones, or {}."""
    settings, dataset = phase.settings, phase.dataset
    count, test = settings.eval.candidates, dataset.test
    if count == 0:
        return {}
    rows = len(next(iter(found.per_user.values())))
    lengths = (test.end - test.start)[:rows]
    kept = {name: found.per_user[name] for name in metrics.grouped(found.per_user)}
    rank = sampled.evaluator(
        phases.model_of(phase),
        split_of(phase, "test", protocols.HONEST),
        sampled.draw(test, dataset.num_items, count),
        phase.mesh,
        ks=settings.eval.ks,
        batch_size=settings.eval.batch_size,
    )
    drawn = rank(params, state, streams.evaluation(settings.seed))
    return {
        "full": sampled.by_length(kept, lengths),
        f"among_{count + 1}": sampled.by_length(drawn, test.end - test.start),
    }


def tuned_baselines(phase: PhaseRun) -> dict[str, baselines.Tuned]:
    """The baselines that have settings (`eval.controls`), tuned under the phase's protocol."""
    dataset = phase.dataset
    if dataset.user_items is None:  # histories without users: every row teaches, its answer too
        train = dataset.train
        rows = ragged.Ragged(train.items, train.start, train.stop, train.stop)
    else:
        rows = ragged.chosen(dataset.user_items)
    return baselines.tune(
        rows,
        phases.scored_by(phase, "valid"),
        dataset.valid,
        dataset.train_counts,
        phase.settings.eval,
        phases.rules_of(phase),
    )


def baselines_per_user(phase: PhaseRun, split: str, tuned: dict[str, baselines.Tuned]):
    """Every metric of every row, of every baseline, by the baselines' names."""
    dataset = phase.dataset
    train = ragged.prefixes(dataset.train) if dataset.whole_rows else dataset.train
    return baselines.per_user(
        train,
        phases.rows_of(dataset, split)[0],
        dataset.train_counts,
        phase.settings.eval,
        phases.rules_of(phase),
        tuned,
        phases.scored_by(phase, split),
    )


def baseline_means(phase: PhaseRun, per_user, tuned: dict[str, baselines.Tuned]):
    """The figures of the baselines, and the settings of those that have some."""
    return baselines.means(
        per_user, phase.settings.eval, phases.rules_of(phase), phase.dataset.num_users, tuned
    )
