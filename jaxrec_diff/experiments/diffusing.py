"""Does it diffuse? What a trained model recommends when its reverse process is changed.

Rows of the same test split, each with the same weights: its own lists; the full chain; one call of
the network; the fewest that its preset has measured to be enough; the chain whose network is shown
nothing in place of x_t, another user's x_0 or the true one at every step; no guidance. The true x_0
is a ceiling: if showing the answer changes nothing, the network cannot use x_t, whatever its loss
says.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrec_diff import config
from jaxrec_diff.evaluation import lists, shown
from jaxrec_diff.evaluation.config import LOSS
from jaxrec_diff.evaluation.lists import Lists
from jaxrec_diff.evaluation.shown import Seen
from jaxrec_diff.evaluation.types import Split
from jaxrec_diff.experiments import generation, judging, phases, restore
from jaxrec_diff.experiments.phases import PhaseRun
from jaxrec_diff.experiments.runs import Run
from jaxrec_diff.models import registry
from jaxrec_diff.ops import streams
from jaxrec_diff.training.state import averaged

LIST = 10

OWN, FULL, ONE_CALL, FAST = "as it recommends", "full chain", "one call", "fewest steps"
WITHOUT, STRANGER, ANSWER = "without x_t", "another user's x_0 shown", "the true x_0 shown"
UNGUIDED = "without guidance"

_NO_PATH = ("one_step", "closed_form")  # samplers that walk no table


class Row(NamedTuple):
    """The model with one thing changed."""

    name: str
    make: Callable[[], PhaseRun]  # ValueError, in a sentence, where there is no such thing
    seen: Seen | None = None  # what its network is shown along the chain
    stranger: bool = False  # whose x_0


def diffuses(run: Run) -> bool:
    """Whether a run trains a model with a reverse process."""
    return hasattr(run.experiment.model, "sampler")


def control(phase: PhaseRun, params: Any, state: Any, split: str = "test") -> dict[str, Any]:
    """The figures of a trained model with its reverse process changed, all from the same noise.

    Returns:
      "rows" by name: every metric, "steps" of the chain (0 where lists come from none) and
      "overlap" of the top 10 with the model's own lists (Jaccard); "draws", the same of two
      draws of its own lists; "left_out", a sentence for each row that there is none of; "metric",
      the one to look at. {} of a model without a reverse process.
    """
    if not hasattr(phase.settings.model, "sampler"):
        return {}
    key = streams.draw(phase.settings.seed, 0)
    own = judging.lists_of(phase, split, k=LIST)
    first, second = (own(params, state, k) for k in (key, streams.draw(phase.settings.seed, 1)))
    found: dict[str, Any] = {
        "metric": _metric(phase),
        "draws": lists.overlap(first.items, second.items),
        "rows": {
            OWN: first.metrics | {"overlap": 1.0, "steps": steps(phase, params, state, split)}
        },
        "left_out": {},
    }
    for row in _rows(phase):
        try:
            changed = row.make()
            top = _lists(changed, row, split)(params, state, key)
        except ValueError as error:
            found["left_out"][row.name] = str(error)
            continue
        found["rows"][row.name] = top.metrics | {
            "overlap": lists.overlap(first.items, top.items),
            "steps": steps(changed, params, state, split),
        }
    return found


def of_run(run: Run, workdir: Path, split: str = "test") -> dict[str, Any]:
    """`control` of a finished run's model with a diffusion: of its last phase, or of its generator.

    Raises:
      ValueError: if a phase is not finished.
    """
    if not diffuses(run):
        return {}
    if phases.generates(run.experiment):
        phase, train = generation.generator_of(run, workdir)
    else:
        phase = restore.last_phase(run, workdir)
        train = restore.best_of(phase, workdir)
    return control(phase, averaged(train), train.state, split)


def _rows(phase: PhaseRun) -> Iterator[Row]:
    model = phase.settings.model
    walks = registry.system(model).walks
    sampler = model.sampler

    def with_sampler(**fields: Any) -> Callable[[], PhaseRun]:
        return lambda: _changed(phase, walks(replace(model, sampler=replace(sampler, **fields))))

    def unguided() -> PhaseRun:
        weight = getattr(model, "guidance_weight", None)
        if not weight:
            raise ValueError(
                "it has no guidance" if weight is None else "its guidance has no weight as it is"
            )
        return _changed(phase, replace(model, guidance_weight=0.0))

    def fast() -> PhaseRun:
        found = config.fast(phase.title, phase.dataset.name).model
        dotted = {f"model.{field}": value for field, value in found.items()}
        return phases.changed(phase, settings=config.configure(phase.settings, dotted))

    kind = "ddpm" if sampler.kind in _NO_PATH else sampler.kind
    yield Row(FULL, with_sampler(kind=kind, steps=0), shown.itself)
    yield Row(ONE_CALL, with_sampler(kind="one_step", steps=0), shown.itself)
    yield Row(FAST, fast)
    # the chain that it recommends by, where it walks one
    chain = with_sampler(kind=kind) if sampler.kind in _NO_PATH else with_sampler()
    yield Row(WITHOUT, chain, shown.nothing)
    yield Row(STRANGER, chain, shown.the_answer, stranger=True)
    yield Row(ANSWER, chain, shown.the_answer)
    yield Row(UNGUIDED, unguided)


def _changed(phase: PhaseRun, model: Any) -> PhaseRun:
    return phases.changed(phase, settings=replace(phase.settings, model=model))


def _lists(phase: PhaseRun, row: Row, split: str) -> Callable[[Any, Any, jax.Array], Lists]:
    if row.seen is None:
        return judging.lists_of(phase, split, k=LIST)
    users = phases.rows_of(phase.dataset, split)[1]

    def asked(of: Split) -> Split:
        other = np.arange(of.num_rows, dtype=np.int32)
        if row.stranger:
            random = streams.strangers(phase.settings.seed)
            other = shown.strangers(users[: of.num_rows], random)
        return shown.beside(of, phase.batcher.query, other)

    model = shown.seen_through(phases.model_of(phase), row.seen)
    return judging.lists_of(phase, split, k=LIST, model=model, asked=asked)


def steps(phase: PhaseRun, params: Any, state: Any, split: str) -> int:
    """Reverse steps of a phase's chain, that in which its points are made among them; 0 without."""
    model = phases.model_of(phase)
    chain = model.chain
    if chain is None:
        return 0
    rows = phase.batcher.splits[split]

    def table() -> jax.Array:
        query = phase.batcher.query(rows, jax.numpy.arange(1, dtype=np.int32))
        return chain(params, state, jax.random.key(0), query).steps.t

    return len(jax.eval_shape(table)) + (model.finish_step is not None)


def _metric(phase: PhaseRun) -> str:
    metric = phase.settings.eval.metric
    return "ndcg@10" if metric == LOSS else metric
