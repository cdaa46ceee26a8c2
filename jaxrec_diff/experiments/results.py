"""What `results.json` and `per_user.parquet` hold: every figure of a report comes from here."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_args

import numpy as np

from jaxrec_diff import layout
from jaxrec_diff.config.stored import SCHEMA, check_schema, read_json
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.evaluation import evaluator
from jaxrec_diff.evaluation.baselines import Tuned
from jaxrec_diff.evaluation.types import Evaluation
from jaxrec_diff.experiments import (
    diffusing,
    exports,
    generation,
    json_files,
    judging,
    phases,
    provenance,
    restore,
    selection,
    shuffling,
    workdirs,
)
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models.protocols import Protocol
from jaxrec_diff.ops import files, ragged
from jaxrec_diff.training import digests, loop
from jaxrec_diff.training.state import averaged

UNFINISHED = "controls_left"
"""Names what is still missing from results that were written before the slow baselines."""

SEAL = "seal"
"""A digest of all the others; files that were made without one are taken as they are."""

_BACKBONE = "backbone"  # the row of the model that another starts from

_KINDS = {
    "model": str, "dataset": str, "split": str, "protocol": str, "num_users": int, "metrics": dict,
    "controls": dict, "optimum": dict, "diagnostics": dict,
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The results in a file.

    Raises:
      ValueError: if it was damaged or changed, or written by another version.
    """
    again = "remove it, and bin/train makes it again from the checkpoints"
    stored = read_json(path, again)
    check_schema(stored, path)
    for name, kind in _KINDS.items():
        if not isinstance(stored.get(name), kind):
            raise ValueError(f"{path} holds no {name} that can be used; {again}")
    # controls hold what they were tuned to beside their figures
    for each in (stored["metrics"], stored["optimum"], *stored["controls"].values()):
        known = each.keys() & stored["metrics"].keys() if isinstance(each, dict) else ()
        if not known and each != {} or any(type(each[name]) not in (int, float) for name in known):
            raise ValueError(f"{path} holds figures that are no numbers; {again}")
    if stored.get(SEAL, _seal(stored)) != _seal(stored):
        raise ValueError(f"{path} does not hold the figures that were written; {again}")
    return stored


def sealed(results: dict[str, Any]) -> dict[str, Any]:
    """Results as json holds them, with a digest by which `read` knows that they are whole."""
    plain = json.loads(json.dumps(results))
    return plain | {SEAL: _seal(plain)}


def _seal(stored: dict[str, Any]) -> str:
    return digests.of_json({name: value for name, value in stored.items() if name != SEAL})


class Judged(NamedTuple):
    """A trained model on the test split under one protocol."""

    phase: PhaseRun
    found: Evaluation  # the mean over draws
    spread: dict[str, float]  # over draws


def write(
    run: Run, phase: PhaseRun, fitted: loop.Fit, wall_seconds: float, workdir: Path
) -> dict[str, Any]:
    """Evaluates what a run has trained and writes `results.json` and `per_user.parquet`.

    Baselines that are tuned take more memory and time than all else, so the figures of the model
    are on disk before these begin. Of several processes the first one alone looks at baselines and
    writes.
    """
    params, state = averaged(fitted.train), fitted.train.state
    judged = _judged(phase, params, state)
    judged = _beside_backbone(run, judged, workdir)
    main = judged[phase.settings.eval.protocol]
    training = _of_training(phase, fitted) | {"wall_seconds": wall_seconds}
    groups = judging.groups(main.phase, params, state, main.found)
    generated = generation.results(run, workdir) if phases.generates(run.experiment) else {}
    if phase.settings.eval.shuffles:
        training["order"] = shuffling.control(main.phase, params, state)
    if phase.settings.eval.diffuses:
        training["diffusion"] = (
            diffusing.of_run(run, workdir)
            if phases.generates(run.experiment)
            else diffusing.control(main.phase, params, state)
        )

    def assemble(tuned: dict[str, Tuned]) -> dict[str, Any]:
        beside = {
            name: judging.baselines_per_user(each.phase, "test", tuned)
            for name, each in judged.items()
        }
        protocols = {
            name: _protocol(each, judging.baseline_means(each.phase, beside[name], tuned))
            for name, each in judged.items()
        }
        path = workdirs.per_user_path(workdir)
        write_per_user(
            phase.dataset, "test", main.found, path, beside[phase.settings.eval.protocol]
        )
        seconds = {name: each.seconds for name, each in tuned.items()}
        took = training | {"control_seconds": seconds}
        return _results(run, phase, took, protocols, groups)

    def written() -> dict[str, Any]:
        path, slow = workdirs.results_path(workdir), phase.settings.eval.controls
        if slow:
            json_files.write_json(path, sealed(assemble({}) | {UNFINISHED: list(slow)}))
        results = sealed(assemble(judging.tuned_baselines(phase)) | generated)
        json_files.write_json(path, results)
        return results

    return layout.by_first(written)


def _judged(phase: PhaseRun, params: Any, state: Any) -> dict[Protocol, Judged]:
    under: dict[Protocol, PhaseRun] = {}
    for protocol in get_args(Protocol):
        chosen = phases.under(phase, protocol)
        if len(phase.dataset.test.start) >= phases.rules_of(chosen).multiple_of:
            under[protocol] = chosen
    found = judging.draws_by_protocol(under, params, state, "test")
    return {
        protocol: Judged(
            under[protocol],
            evaluator.mean_over_seeds(draws),
            evaluator.spread(draws) if len(draws) > 1 else {},
        )
        for protocol, draws in found.items()
    }


def _beside_backbone(
    run: Run, judged: dict[Protocol, Judged], workdir: Path
) -> dict[Protocol, Judged]:
    """What is judged, with the figures of the backbone alone among its diagnostics.

    Not of a generator, which ends in its backbone again, nor where a model has that row itself, nor
    of a backbone that came as arrays without a checkpoint.
    """
    first, known = run.phases[0], next(iter(judged.values())).found.diagnostics
    another = first.name == phases.BACKBONE and not phases.generates(run.experiment)
    if not another or _BACKBONE in known:
        return judged
    try:
        best = restore.best_of(first, exports.path(workdir, first.name).parent)
    except ValueError:
        return judged
    under = {
        protocol: phases.changed(first, settings=replace(first.settings, eval=settings.eval))
        for protocol, settings in ((p, each.phase.settings) for p, each in judged.items())
    }
    found = judging.draws_by_protocol(under, averaged(best), best.state, "test")
    rows = {p: evaluator.mean_over_seeds(draws).metrics for p, draws in found.items()}
    return {
        p: each._replace(
            found=each.found._replace(diagnostics=each.found.diagnostics | {_BACKBONE: rows[p]})
        )
        for p, each in judged.items()
    }


def _of_training(phase: PhaseRun, fitted: loop.Fit) -> dict[str, Any]:
    settings = phase.settings
    return {
        "selected_by": f"valid {settings.eval.metric}",
        "best_valid": selection.best_valid(phase, fitted),
        "best_step": fitted.best_step,
        "steps": fitted.steps,
        "num_epochs": settings.train.num_epochs,
        "examples_per_second": fitted.examples_per_second,
        "train_seconds": fitted.train_seconds,
        "cpu_seconds": fitted.cpu_seconds,
        "compile_seconds": fitted.compile_seconds,
    }


def _protocol(judged: Judged, baselines: dict[str, dict[str, float]]) -> dict[str, Any]:
    multiple, rows = phases.rules_of(judged.phase).multiple_of, len(judged.phase.dataset.test.start)
    return {
        "metrics": judged.found.metrics,
        "spread": judged.spread,
        "controls": baselines,
        "diagnostics": judged.found.diagnostics,
        "num_users": rows // multiple * multiple,
    }


def _results(
    run: Run,
    phase: PhaseRun,
    training: dict[str, Any],
    protocols: dict[Protocol, dict[str, Any]],
    groups: dict[str, Any],
) -> dict[str, Any]:
    settings, dataset = phase.settings, phase.dataset
    main = protocols[settings.eval.protocol]
    best = phases.optimum_of(dataset, "test", settings.eval.ks)
    return (
        {
            "schema": SCHEMA,
            "model": phase.title,
            "dataset": dataset.name,
            "split": "test",
            "split_rule": dataset.split,
            "protocol": settings.eval.protocol,
            "num_users": main["num_users"],
            "metrics": main["metrics"],
            "controls": main["controls"],
            "optimum": best,
            "share_of_optimum": {n: main["metrics"][n] / v for n, v in best.items() if v > 0},
            "diagnostics": main["diagnostics"],
        }
        | training
        | {"protocols": protocols, "groups": groups, "data_hash": dataset.card["hash"]}
        | provenance.provenance(run.command, run.experiment.seed, run.mesh)
    )


def write_per_user(
    dataset: Dataset,
    split: str,
    found: Evaluation,
    path: Path,
    beside: Mapping[str, Mapping[str, np.ndarray]] = MappingProxyType({}),
) -> None:
    """One row a user: raw id, history length, answers and how often these occur in training on
    average, every metric, and every metric of the baselines as `baseline:metric`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    histories, users = phases.rows_of(dataset, split)
    rows = len(next(iter(found.per_user.values())))
    sizes = (histories.stop - histories.end)[:rows].astype(np.int64)
    place, row = ragged.expand(histories.end[:rows], sizes)
    counts = dataset.train_counts[histories.items[place] - 1]
    columns = {
        "user_id": dataset.user_ids[users[:rows]],
        "history_length": (histories.end - histories.start)[:rows],
        "answers": sizes,
        "answer_popularity": np.bincount(row, counts, rows) / np.maximum(sizes, 1),
    }
    columns |= {name: values.astype(np.float32) for name, values in found.per_user.items()}
    for baseline, metrics in beside.items():
        columns |= {f"{baseline}:{name}": values for name, values in metrics.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd", write_page_checksum=True)
