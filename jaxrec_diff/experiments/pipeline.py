"""The phases of a run, one after the other."""

from collections.abc import Callable
from pathlib import Path

from jaxrec_diff.evaluation import config
from jaxrec_diff.experiments import fitting, generation, phases, run
from jaxrec_diff.experiments import workdir as experiments_workdir
from jaxrec_diff.experiments.fitting import Fitting
from jaxrec_diff.experiments.phases import BACKBONE, GENERATOR
from jaxrec_diff.experiments.run import Prepared, Say
from jaxrec_diff.models import registry
from jaxrec_diff.training import loop, stages
from jaxrec_diff.training import progress as training_progress
from jaxrec_diff.training.state import averaged


def fit(
    prepared: Prepared,
    workdir: Path,
    *,
    say: Say = print,
    on_progress: Callable[[training_progress.Progress], None] = lambda _: None,
) -> loop.Fit:
    """Trains as `train` does, but ends before the test split is looked at.

    Unless `eval.track_test` asks for it. What `on_progress` raises ends the training; it hears of
    earlier phases with their name in `phase`.
    """
    experiments_workdir.check_workdir(prepared, workdir)
    experiments_workdir.open_workdir(prepared, workdir)
    return stages.run(_stages(prepared, say, on_progress), prepared.dataset, fitting.fit, workdir)


def fit_backbone(prepared: Prepared, workdir: Path, *, say: Say = print) -> Path | None:
    """Trains what a run starts from, if `workdir` has it not yet; returns the file of its arrays,
    which may be copied to the same place under another workdir of that backbone."""
    if prepared.experiment.backbone is None:
        return None
    first = _stages(prepared, say, lambda _: None)[:1]
    stages.exports(first, prepared.dataset, fitting.fit, workdir)
    return phases.backbone_path(workdir)


def _stages(prepared: Prepared, say: Say, on_progress) -> tuple[stages.Stage, ...]:
    """The phases of a run, the last of which is the run itself."""

    def main(dataset, exports):
        del dataset
        return Fitting(
            prepared._replace(exports=exports.get(BACKBONE, prepared.exports)), say, on_progress
        )

    last = stages.Stage(prepared.name, build=main, export=lambda built, fitted: {})
    if prepared.experiment.backbone is None:
        return (last,)
    earlier = phases.earlier_phase(prepared)

    def first(dataset, exports):
        del dataset, exports
        say(f"first {earlier.name}, whose arrays {prepared.name} starts from")
        return Fitting(earlier, say, named_phase(BACKBONE, on_progress))

    def export(built, fitted):
        say(f"{earlier.name}: best {_describe(fitted, earlier)}; now {prepared.name}")
        system = registry.system(earlier.experiment.model)
        assert system.export is not None  # `prepare` looked at what it exports
        return system.export(
            earlier.experiment.model,
            run.spec_of(earlier),
            averaged(fitted.train),
            fitted.train.state,
        )

    raw = stages.Stage(BACKBONE, build=first, export=export)
    if not run.generates(prepared.experiment):
        return raw, last

    def generator(dataset, exports):
        del dataset
        viewed = run.viewed(prepared._replace(exports=exports[BACKBONE]))
        return Fitting(viewed, say, named_phase(GENERATOR, on_progress))

    def items_before(built, fitted):
        say(f"{prepared.name}: best {_describe(fitted, built.prepared)}; now its items")
        chosen = built.prepared._replace(dataset=prepared.dataset)
        return {"prefix": generation.joined(generation.generate(chosen, fitted.train))}

    def final(dataset, exports):
        del dataset
        say(f"last {earlier.name} again, from scratch on the longer sequences")
        return Fitting(phases.later_phase(prepared, exports[GENERATOR]["prefix"]), say, on_progress)

    return (
        raw,
        stages.Stage(GENERATOR, build=generator, export=items_before),
        last._replace(build=final),
    )


def named_phase(name: str, on_progress: Callable[[training_progress.Progress], None]):
    return lambda progress: on_progress(progress._replace(phase=name))


def _describe(fitted: loop.Fit, prepared: Prepared) -> str:
    metric = prepared.experiment.eval.metric
    return f"valid {metric} {best_valid(fitted, prepared):.4f} at step {fitted.best_step}"


def best_valid(fitted: loop.Fit, prepared: Prepared) -> float:
    """The best validation metric; one that is better when lower is minus its score."""
    return config.sign(prepared.experiment.eval.metric) * fitted.best_score
