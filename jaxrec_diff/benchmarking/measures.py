"""Questions answered: a line of figures for every point."""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxrec_diff.benchmarking import peak, peers, points, program, start, subjects, timing
from jaxrec_diff.benchmarking.asks import Ask, Case, NoReverseProcess, cases
from jaxrec_diff.benchmarking.points import Point
from jaxrec_diff.benchmarking.subjects import Call, Subject
from jaxrec_diff.config.choice import FAST
from jaxrec_diff.diffusion import process
from jaxrec_diff.experiments import provenance

Line = dict[str, Any]

_DISPATCH = 0.5  # seconds that the updates of a dispatch take together
# A peer that ends further from us, as a share of the largest number, walks another path.
AGREEMENT = 1e-2


def lines(ask: Ask, command: str, say: Callable[[str], None]) -> Iterator[Line]:
    """Measures everything that is asked, one point after the other.

    Args:
      ask: from a command line, checked (`asks.check`).
      command: what a user typed, for the record.
      say: is told in a sentence what has no answer, and what a reader should know.

    Raises:
      ValueError: in one sentence, if the only system that is asked about cannot be measured.
    """
    for name in ask.models:
        try:
            for case in cases(ask, name):
                yield from _of_case(ask, case, command, say)
        except NoReverseProcess as nothing:
            say(str(nothing))
        except ValueError as error:
            if len(ask.models) == 1:
                raise
            say(f"{name}: {error}")


def _of_case(ask: Ask, case: Case, command: str, say: Callable[[str], None]) -> Iterator[Line]:
    subject = subjects.make(case.name, case.experiment, case.source, case.dataset)
    if set(ask.samplers) - {FAST} or ask.steps or set(ask.peers) & set(peers.JAX):
        subjects.chain_of(subject)  # refuses these flags where there is none
    one_core = points.on_one_core(jax.default_backend())
    found = provenance.provenance(command, case.experiment.seed, subject.phase.mesh)
    about = {k: v for k, v in found.items() if k not in ("devices", "platform")}
    about |= {"machine": found["platform"], "clock": "processor" if one_core else "wall"}
    about["load"] = os.getloadavg()[0]  # what else the machine did costs processor time too
    answer = {
        "train": _train, "evaluate": _evaluation, "compile": _programs, "memory": _programs,
        "start": _start,
    }.get(ask.question, _asked)  # fmt: skip
    for point in answer(ask, subject, case.batch):
        if point.timing is not None and point.program is not None:
            point = point._replace(peak=peak.measured(jax.default_backend(), one_core))
        if point.difference is not None and not point.difference < AGREEMENT:
            say(
                f"--peer={point.way} ends {point.difference:.1%} of the largest number away from "
                f"the compiled scan of {point.model}: rounding was amplified along the path"
            )
        yield points.line(point, about)


def _point(subject: Subject, ask: Ask, part: str, batch: int, **figures: Any) -> Point:
    phase, experiment = subject.phase, subject.run.experiment
    sampled = part != "train" and subjects.has_sampler(experiment)
    return Point(
        question=ask.question,
        part=part,
        model=subject.run.name,
        data=subject.run.dataset.name,
        way=figures.pop("way", "ours"),
        sampler=_kind(subject) if sampled else "",
        steps=subjects.reverse_calls(subject, batch) if sampled else 0,
        batch=batch,
        users=subject.run.dataset.num_users,
        items=phase.dataset.num_items,
        length=phase.spec.max_len,
        devices=phase.mesh.size,
        **figures,
    )


def _kind(subject: Subject) -> str:
    return "one call" if subject.model.chain is None else subject.run.experiment.model.sampler.kind


def _asked(ask: Ask, subject: Subject, batch: int) -> Iterator[Point]:
    """Points of queries (`sampler`), or lists of them (`rank`), and then the peers."""
    part = ask.question
    call = _CALLS[part](subject, batch)
    if ask.lower:
        yield _lowered(ask, subject, part, batch, call)
        return
    with jax.set_mesh(call.mesh):
        made = program.compiled(call.fn, *call.args)
        found = timing.measured(lambda: made.run(*call.args), ask.repeats)
    yield _point(
        subject, ask, part, batch, units=call.units, unit=call.unit, timing=found,
        program=program.counted(made),
    )  # fmt: skip
    for peer in ask.peers:
        with jax.set_mesh(call.mesh):
            point = _peer(ask, subject, peer, batch, call)
        yield point


def _peer(ask: Ask, subject: Subject, peer: str, batch: int, call: Call) -> Point:
    """A sampler as people write it otherwise."""
    apart = None
    if peer in peers.TORCH:
        port = peers.port(subject.phase.settings.model, "sampler")
        params, query = jax.device_get((call.args[0], call.args[-1]))
        run = port(subject.phase.settings.model, subject.phase.spec, params, query,
                   compiled=peer == "torch-compile")  # fmt: skip
    else:
        chain = subjects.chain_of(subject)
        run = (peers.loop if peer == "loop" else peers.eager)(chain, *call.args)
        ends = jax.jit(lambda *args: process.run(chain(*args)))(*call.args)
        apart = peers.difference(run(), ends)
    found = timing.measured(run, ask.repeats)
    return _point(
        subject, ask, "sampler", batch, way=peer, units=call.units, unit=call.unit, timing=found,
        difference=apart,
    )  # fmt: skip


def _train(ask: Ask, subject: Subject, batch: int) -> Iterator[Point]:
    """Updates, as many in a dispatch as take half a second."""
    call = subjects.updates(subject, 1)
    if ask.lower:
        yield _lowered(ask, subject, "train", batch, call)
        return
    with jax.set_mesh(call.mesh):
        made = program.compiled(call.fn, *call.args)
        run = _updating(made.run, call.args)
        first = timing.measured(partial(run, 1), 1).seconds
        call = subjects.updates(subject, math.ceil(_DISPATCH / first))
        found = timing.measured(partial(run, call.updates), ask.repeats)
    yield _point(
        subject, ask, "train", batch, units=call.units, unit=call.unit, timing=found,
        program=program.counted(made, call.updates),
    )  # fmt: skip
    for peer in ask.peers:
        port = peers.port(subject.phase.settings.model, "train")
        phase, (_, data, key, order, _, _) = subject.phase, call.args
        row = np.arange(order.shape[1], dtype=np.int32)
        example = jax.jit(phase.batcher.example)(data, order[0], row, key)
        given = jax.device_get((subject.train.params, example))
        step = port(phase.settings.model, phase.spec, *given, compiled=peer == "torch-compile")
        found = timing.measured(step, ask.repeats)
        yield _point(
            subject, ask, "train", batch, way=peer, units=batch, unit="examples", timing=found
        )


def _updating(run: Callable[..., Any], args: tuple) -> Callable[[int], Any]:
    """A function of a number of updates, from the state that the last ones left."""
    train, *others, _ = args

    def updates(count: int) -> Any:
        nonlocal train
        train, reports = run(train, *others, np.int32(count))
        return reports

    return updates


def _evaluation(ask: Ask, subject: Subject, batch: int) -> Iterator[Point]:
    """The test split ranked, with its metrics."""
    run, rows = subjects.evaluation(subject)
    found = timing.measured(run, ask.repeats)
    yield _point(subject, ask, "evaluate", batch, units=rows, unit="users", timing=found)


def _programs(ask: Ask, subject: Subject, batch: int) -> Iterator[Point]:
    """Every program of a system, compiled and not run."""
    sampled = subjects.has_sampler(subject.run.experiment)
    for part in ("sampler", "rank", "train") if sampled else ("rank", "train"):
        call = _CALLS[part](subject, 1 if part == "train" else batch)
        size = subject.phase.settings.train.batch_size if part == "train" else batch
        if ask.lower:
            yield _lowered(ask, subject, part, size, call)
            continue
        with jax.set_mesh(call.mesh):
            made = program.compiled(call.fn, *call.args)
        yield _point(
            subject, ask, part, size, units=call.units, unit=call.unit,
            program=program.counted(made),
        )  # fmt: skip


def _start(ask: Ask, subject: Subject, batch: int) -> Iterator[Point]:
    """A process from nothing to its first lists, by what it finds in the cache of programs."""
    for way, found in start.measured(subject.run, batch, ask.repeats):
        yield _point(subject, ask, "start", batch, way=way, units=batch, unit="users", timing=found)


def _lowered(ask: Ask, subject: Subject, part: str, batch: int, call: Call) -> Point:
    with jax.set_mesh(call.mesh):
        found = program.lowered(call.fn, *call.args, platform=ask.lower)
    return _point(
        subject, ask, part, batch, units=call.units, unit=call.unit, program=found,
        lowered_for=ask.lower,
    )  # fmt: skip


_CALLS: dict[str, Callable[[Subject, int], Call]] = {
    "sampler": subjects.sampler,
    "rank": subjects.ranked,
    "train": subjects.updates,
}
