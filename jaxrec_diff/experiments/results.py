"""What `results.json` and `per_user.parquet` hold."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxrec_diff.config.stored import SCHEMA
from jaxrec_diff.evaluation import baselines, evaluator, types
from jaxrec_diff.experiments import judging, pipeline, provenance
from jaxrec_diff.experiments import run as experiments_run
from jaxrec_diff.experiments import workdir as experiments_workdir
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.models import registry
from jaxrec_diff.ops import files, ragged
from jaxrec_diff.training import loop
from jaxrec_diff.training.state import averaged


def results(
    prepared: Prepared, fitted: loop.Fit, wall_seconds: float, workdir: Path
) -> dict[str, Any]:
    experiment, dataset = prepared.experiment, prepared.dataset
    params, state = averaged(fitted.train), fitted.train.state
    protocols: dict[str, dict[str, Any]] = {}
    groups: dict[str, Any] = {}
    tuned = judging.tuned(prepared)
    for protocol in ("honest", "official"):
        chosen = replace(experiment, eval=replace(experiment.eval, protocol=protocol))
        rules = evaluator.rules_of(chosen.eval, registry.system(chosen.model).official)
        if len(dataset.test.start) < rules.multiple_of:
            continue
        run_as = prepared._replace(experiment=chosen)
        run = judging.split_evaluator(
            run_as, experiments_run.build(run_as), "test", rules, diagnose=True
        )
        runs = evaluator.over_seeds(run, params, state, experiment.seed, experiment.eval.seeds)
        found = evaluator.mean_over_seeds(runs)
        beside = judging.baselines_per_user(run_as, "test", rules, tuned)
        if protocol == experiment.eval.protocol:
            groups = judging.groups(run_as, params, state, found)
            path = experiments_workdir.per_user_path(workdir)
            write_per_user(prepared, dataset.test, "test", found, path, beside)
        protocols[protocol] = {
            "metrics": found.metrics,
            "spread": evaluator.spread(runs) if len(runs) > 1 else {},
            "controls": baselines.means(beside, chosen.eval, rules, dataset.num_users, tuned),
            "diagnostics": found.diagnostics,
            "num_users": len(dataset.test.start) // rules.multiple_of * rules.multiple_of,
        }
    main = protocols[experiment.eval.protocol]
    best = experiments_run.optimum_of(prepared, dataset.test)
    return {
        "schema": SCHEMA,
        "model": prepared.name,
        "dataset": dataset.name,
        "split": "test",
        "split_rule": dataset.split,
        "protocol": experiment.eval.protocol,
        "num_users": main["num_users"],
        "metrics": main["metrics"],
        "controls": main["controls"],
        "optimum": best,
        "share_of_optimum": {n: main["metrics"][n] / v for n, v in best.items() if v > 0},
        "diagnostics": main["diagnostics"],
        "selected_by": f"valid {experiment.eval.metric}",
        "best_valid": pipeline.best_valid(fitted, prepared),
        "best_step": fitted.best_step,
        "steps": fitted.steps,
        "num_epochs": experiment.train.num_epochs,
        "examples_per_second": fitted.examples_per_second,
        "train_seconds": fitted.train_seconds,
        "wall_seconds": wall_seconds,
        "protocols": protocols,
        "groups": groups,
        "data_hash": dataset.card["hash"],
    } | provenance.provenance(prepared)


def write_per_user(
    prepared: Prepared,
    slices: ragged.Ragged,
    split: str,
    found: types.Evaluation,
    path: Path,
    beside: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> None:
    """One row a user: raw id, history length, answers and how often these occur in training on
    average, every metric, and every metric of the baselines as `baseline:metric`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    users = {"valid": prepared.dataset.valid_users, "test": prepared.dataset.test_users}[split]
    rows = len(next(iter(found.per_user.values())))
    sizes = (slices.stop - slices.end)[:rows].astype(np.int64)
    place, row = ragged.expand(slices.end[:rows], sizes)
    counts = prepared.dataset.train_counts[slices.items[place] - 1]
    columns = {
        "user_id": prepared.dataset.user_ids[users[:rows]],
        "history_length": (slices.end - slices.start)[:rows],
        "answers": sizes,
        "answer_popularity": np.bincount(row, counts, rows) / np.maximum(sizes, 1),
    }
    columns |= {name: values.astype(np.float32) for name, values in found.per_user.items()}
    for baseline, metrics in beside.items():
        columns |= {f"{baseline}:{name}": values for name, values in metrics.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")
