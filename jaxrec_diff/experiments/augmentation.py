"""What a generator's run adds to its results."""

from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.augmentation import quality
from jaxrec_diff.data import views
from jaxrec_diff.evaluation import evaluator
from jaxrec_diff.experiments import arrays as experiments_arrays
from jaxrec_diff.experiments import generation, judging, phases, restore
from jaxrec_diff.experiments import run as experiments_run
from jaxrec_diff.experiments.phases import BACKBONE, GENERATOR
from jaxrec_diff.experiments.run import Prepared
from jaxrec_diff.models import registry
from jaxrec_diff.ops import streams
from jaxrec_diff.training import loop, stages
from jaxrec_diff.training.state import TrainState, averaged


class Generating(NamedTuple):
    """A generator that a run has trained."""

    prepared: Prepared  # with the backbone's exports, on the data as it was read
    train: TrainState


def generator_of(prepared: Prepared, workdir: Path) -> Generating:
    """The trained generator of a workdir.

    Raises:
      ValueError: if the run has none, or has not finished its training.
    """
    if not experiments_run.generates(prepared.experiment):
        raise ValueError(f"{workdir} holds a {prepared.name}, which generates no items")
    phases.check_phases(prepared, workdir)
    arrays = experiments_arrays.read_arrays(stages.export_path(workdir, BACKBONE))
    viewed = experiments_run.viewed(prepared._replace(exports=arrays))
    folder = stages.export_path(workdir, GENERATOR).parent / "checkpoints"
    best = loop.load(folder, restore.abstract_state(viewed, experiments_run.build(viewed)))
    return Generating(viewed._replace(dataset=prepared.dataset), best)


def generated_results(prepared: Prepared, workdir: Path) -> dict[str, Any]:
    """What a generator's run adds to its results: the recommender without the generated items, and
    what those are like."""
    dataset = prepared.dataset
    earlier = phases.earlier_phase(prepared)
    model = experiments_run.build(earlier)
    folder = stages.export_path(workdir, BACKBONE).parent / "checkpoints"
    best = loop.load(folder, restore.abstract_state(earlier, model))
    params, state = averaged(best), best.state
    rules = evaluator.rules_of(
        earlier.experiment.eval, registry.system(earlier.experiment.model).official
    )
    run = judging.split_evaluator(earlier, model, "test", rules)
    key = streams.evaluation(earlier.experiment.seed)
    found = run(params, state, key)
    prefix = experiments_arrays.read_arrays(stages.export_path(workdir, GENERATOR))["prefix"]
    made = quality.quality(prefix, generation.raw(prepared), dataset.train_counts)
    return {
        "without": {
            "model": earlier.name,
            "metrics": found.metrics,
            "groups": judging.groups(earlier, params, state, found),
        },
        "generated": made | _held_out(prepared, workdir),
    }


def _held_out(prepared: Prepared, workdir: Path) -> dict[str, float]:
    """Recall of the items that really came first for long users kept from the generator."""
    generator = generator_of(prepared, workdir)
    histories, true = views.known_before(
        experiments_run.viewed(prepared).dataset.test, prepared.experiment.data.prefix_len
    )
    items = generation.joined(generation.generate(generator.prepared, generator.train, histories))
    found = quality.quality(items, histories, prepared.dataset.train_counts, true)
    return {k: v for k, v in found.items() if k.startswith("recall")}
