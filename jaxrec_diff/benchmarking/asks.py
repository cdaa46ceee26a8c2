"""What can be asked, and the systems and sizes that an ask goes through."""

import functools
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

import jax

from jaxrec_diff import config
from jaxrec_diff.benchmarking import peers, program, shapes
from jaxrec_diff.benchmarking.shapes import Shape
from jaxrec_diff.benchmarking.subjects import has_sampler
from jaxrec_diff.config import Experiment, presets
from jaxrec_diff.config.choice import FAST
from jaxrec_diff.data.dataset import Dataset
from jaxrec_diff.data.load import load
from jaxrec_diff.data.sources import dataset_name
from jaxrec_diff.diffusion import samplers

QUESTIONS = ("sampler", "train", "rank", "evaluate", "compile", "memory", "start")

# Examples that parameters are made by the shapes of, where no update is measured.
_FEW = 8

_of_shape = functools.lru_cache(maxsize=1)(shapes.dataset)
_of_source = functools.lru_cache(maxsize=1)(load)


class NoReverseProcess(ValueError):
    """A system without a reverse process was asked about it; `str` is an answer in a sentence."""


class Ask(NamedTuple):
    """A question, and everything that it is asked of. An empty tuple takes what settings say."""

    question: str
    models: tuple[str, ...]
    source: str = "synthetic"
    shapes: tuple[Shape, ...] = ()  # in place of a source
    preset: str = ""
    flags: tuple[str, ...] = ()  # dotted
    batches: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()
    samplers: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()
    repeats: int = 5
    lower: str = ""  # a platform that programs are lowered for and not run


class Case(NamedTuple):
    """One system at one size."""

    name: str
    experiment: Experiment
    source: str
    dataset: Dataset
    batch: int


def check(ask: Ask) -> None:
    """Refuses what cannot be asked, before anything is read.

    Raises:
      ValueError: in one sentence, with what can be asked instead.
    """
    _one_of("bin/benchmark", (ask.question,), QUESTIONS)
    _one_of("--model=", ask.models, tuple(config.preset_names()))
    _one_of("--sampler=", ask.samplers, (FAST, *samplers.PATHS))
    _one_of("--peer=", ask.peers, peers.PEERS)
    if ask.lower:
        _one_of("--lower=", (ask.lower,), program.PLATFORMS)
    walks = ("sampler", "rank", "evaluate", "compile", "memory", "start")
    known = {
        "--sampler": (ask.samplers, walks),
        "--steps": (ask.steps, walks),
        "--peer": (ask.peers, ("sampler", "train")),
        "--lower": (ask.lower, ("sampler", "train", "rank", "compile")),
    }
    for flag, (given, questions) in known.items():
        if given and ask.question not in questions:
            raise ValueError(
                f"{flag} changes nothing in bin/benchmark {ask.question}; it is for "
                f"{', '.join(questions)}"
            )
    if ask.question == "train" and set(ask.peers) & set(peers.JAX):
        raise ValueError(f"--peer={','.join(ask.peers)} walks a sampler; train has torch peers")
    if ask.lower and ask.peers:
        raise ValueError("--lower runs nothing, so it takes no --peer")


def shapes_from(text: str) -> tuple[Shape, ...]:
    """Shapes in words, `users:1000,items:500/5000,len:20`: every combination.

    >>> [shape.items for shape in shapes_from("items:500/5000")]
    [500, 5000]

    Raises:
      ValueError: on words that are no shape.
    """
    sizes: dict[str, tuple[int, ...]] = {"users": (1000,), "items": (1000,), "len": (20,)}
    for part in text.split(","):
        name, _, values = part.partition(":")
        if name not in sizes or not re.fullmatch(r"[1-9]\d*(/[1-9]\d*)*", values):
            raise ValueError(
                f"--shape takes users:N,items:N,len:N, or several as items:N/M; got {part!r}"
            )
        sizes[name] = tuple(map(int, values.split("/")))
    return tuple(itertools.starmap(Shape, itertools.product(*sizes.values())))


def cases(ask: Ask, name: str) -> Iterator[Case]:
    """All sizes that a system is asked about.

    Raises:
      NoReverseProcess: if it has none and one is asked about.
      ValueError: on settings that do not fit it.
    """
    bare = {"model": name, "data": ask.source}
    if ask.preset:
        bare["preset"] = ask.preset
    chosen = config.choose(bare)
    settings = chosen.settings.experiment
    if (ask.question == "sampler" or ask.samplers or ask.steps) and not has_sampler(settings):
        raise NoReverseProcess(
            f"{name} has no reverse process: a query is one call of its network, which "
            f"bin/benchmark rank --model={name} measures"
        )
    if set(ask.peers) & set(peers.TORCH):
        peers.port(settings.model, ask.question)
    every = itertools.product(
        ask.shapes or (None,), ask.samplers or (None,), ask.steps or (None,),
        ask.devices or (None,), ask.batches or (None,),
    )  # fmt: skip
    for shape, sampler, steps, devices, batch in every:
        experiment = settings
        if shape is not None:
            fitted = {"data.max_len": shape.length, "data.buckets": ()}
            experiment = config.configure(experiment, fitted)
        experiment = config.parse(experiment, ask.flags)
        asked = {"model.sampler.kind": sampler, "model.sampler.steps": steps, "devices": devices}
        asked = {k: v for k, v in asked.items() if v is not None}
        fitted = config.with_fast(asked, name, ask.preset or dataset_name(chosen.source))
        experiment = config.configure(experiment, fitted)
        experiment, size = _with_batch(experiment, ask.question, batch)
        if shape is not None:
            dataset = _of_shape(shape, experiment.data)
        else:
            dataset = _of_source(chosen.source, experiment.data)
        yield Case(name, experiment, "shape" if shape else chosen.source, dataset, size)


def _with_batch(experiment: Experiment, question: str, batch: int | None) -> tuple[Experiment, int]:
    """Settings with the batch where the question reads it, and the batch."""
    train, size = experiment.train.batch_size, batch or experiment.eval.batch_size
    changes = {"eval.batch_size": size, "train.batch_size": batch or train}
    if question == "train":
        size = batch or train
    elif question not in ("compile", "memory"):  # no update is looked at
        changes["train.batch_size"] = min(train, _few(experiment))
    if experiment.backbone is not None:
        few = min(experiment.backbone.train.batch_size, _few(experiment))
        changes["backbone.train.batch_size"] = few
    return config.configure(experiment, changes), size


def _few(experiment: Experiment) -> int:
    return _FEW * (experiment.devices or len(jax.devices()))


def _one_of(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    for word in given:
        if word not in known:
            near = presets.suggest(word, list(known))
            raise ValueError(f"{what.rstrip('=')} takes no {word!r}; {near}")
