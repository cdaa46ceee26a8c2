"""What guidance does to DiffuASR's items: one trained generator, several weights.

    python benchmarks/augment_guidance.py --workdirs runs/augmentation/sasrec-seed*/diffuasr_cf \\
        --name=beauty-diffuasr-guidance

For every weight the generator of each workdir puts items ahead of the histories of long users that
were kept from it, whose first items are known, from the same noise. Written to
`benchmarks/results/NAME.json`: `augmentation.quality` of the items, and for a classifier the mean
log probability that it gives the points; means and deviations over workdirs.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from augmentation import RESULTS, spread

from jaxrec_diff.augmentation import quality
from jaxrec_diff.batches import cut
from jaxrec_diff.data import views
from jaxrec_diff.experiments import generation, provenance, restore
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.models import diffuasr
from jaxrec_diff.ops import ragged
from jaxrec_diff.training.state import averaged

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0)


def held_out(phase: PhaseRun) -> tuple[ragged.Ragged, np.ndarray]:
    """Histories of long users kept from training, and the M items that came before each."""
    length, dataset = phase.settings.data.prefix_len, phase.dataset
    parts = [views.known_before(rows, length) for rows in (dataset.valid, dataset.test)]
    (first, _), (second, _) = parts
    items = np.concatenate([first.items, second.items])
    start = np.concatenate([first.start, second.start + len(first.items)])
    end = np.concatenate([first.end, second.end + len(first.items)])
    return ragged.Ragged(items, start, end, end), np.concatenate([true for _, true in parts])


def judged(workdir: Path, weight: float) -> dict[str, float]:
    """Quality of the items that one generator makes under a weight of its guidance."""
    run = restore.reopen(workdir, [f"--model.guidance-weight={weight}"])
    phase, train = generation.generator_of(run, workdir)
    histories, true = held_out(phase)
    items = generation.all_items(phase, train, histories)
    found = quality.quality(items, histories, phase.dataset.train_counts, true)
    settings = phase.settings
    if settings.model.guidance == "classifier":
        parts = diffuasr.parts(settings.model, phase.spec)
        rows = jax.tree.map(jnp.asarray, histories)
        index = jnp.arange(len(true), dtype=jnp.int32)
        query = cut.queries(rows, index, max_len=settings.data.max_len)
        of_run = averaged(train), train.state, jax.random.key(settings.seed), query
        points = jax.jit(partial(diffuasr.points, parts))(*of_run)
        found["log_prob"] = float(
            jax.jit(partial(diffuasr.log_prob, parts))(*of_run, points).mean()
        )
    return found | {"histories": len(true)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdirs", nargs="+", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", type=float, default=WEIGHTS)
    parser.add_argument("--name", required=True, help="of the results file")
    options = parser.parse_args()
    first = restore.reopen(options.workdirs[0])
    results: dict[str, Any] = provenance.provenance(
        first.command, first.experiment.seed, first.mesh
    ) | {
        "command": " ".join(["python", *sys.argv]),
        "dataset": first.dataset.name,
        "data_hash": first.dataset.card["hash"],
        "guidance": first.experiment.model.guidance,
        "seeds": [restore.reopen(workdir).experiment.seed for workdir in options.workdirs],
        "weights": {},
    }
    for weight in options.weights:
        rows = [judged(workdir, weight) for workdir in options.workdirs]
        results["weights"][f"{weight:g}"] = {
            name: spread([row[name] for row in rows]) for name in rows[0]
        }
        means = {k: round(v[0], 4) for k, v in results["weights"][f"{weight:g}"].items()}
        print(f"{weight:g}", means, flush=True)
        (RESULTS / f"{options.name}.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
