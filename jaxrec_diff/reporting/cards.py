"""Model cards: what a reader asks of a system before training it, gathered from where it stands.

Nothing is written here by hand: words come from the docstrings of the preset and of the model,
figures from the preset's `facts` and from results files.
"""

import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

from jaxrec_diff.config import presets
from jaxrec_diff.models import registry
from jaxrec_diff.reporting import parity
from jaxrec_diff.reporting.parity import Measured, Parity


class Data(NamedTuple):
    """A data set that a preset has settings for."""

    name: str
    published: bool  # whether they are those of the paper or its code
    command: str


class Card(NamedTuple):
    """A system on a page."""

    name: str  # that `--model` takes
    about: str  # a sentence
    text: str  # the rest of what its preset says
    how: str  # how it works: its module's words
    papers: tuple[str, ...]  # "arXiv:2310.20453"
    reads: str  # the kind of input
    diffuses: bool  # whether it has a reverse process
    backbone: str  # the preset that is trained before it, or ""
    data: tuple[Data, ...]
    command: str
    official: str  # how its authors rank
    parity: tuple[Parity, ...]  # published figures beside ours
    measured: tuple[Measured, ...]  # all runs of it here
    differs: tuple[str, ...]
    limits: tuple[str, ...]
    choose: str


def card(name: str, results: Path | None = None) -> Card:
    """The card of a preset.

    Args:
      name: that `--model` takes.
      results: a folder of results files; by default that of the checkout, if there is one.

    Raises:
      ValueError: on an unknown name.
    """
    preset = presets.load(name)
    found = parity.measured(parity.results_folder() if results is None else results)
    model = preset.default.model
    head, _, text = presets.docstring(name).partition("\n\n")
    module = inspect.getdoc(sys.modules[type(model).__module__]) or ""
    named = {**dict.fromkeys(preset.published, True), **dict.fromkeys(preset.ours, False)}
    published = preset.facts.published
    return Card(
        name,
        " ".join(head.split()),
        text,
        module,
        tuple(dict.fromkeys(re.findall(r"arXiv:\d{4}\.\d{4,5}", f"{head} {module}"))),
        registry.input_of(model).name,
        hasattr(model, "sampler"),
        preset.backbone,
        tuple(Data(data, ours, _command(name, data)) for data, ours in named.items()),
        f"bin/train --model={name}",
        parity.official(name),
        parity.parity(name, found) if published else (),
        tuple(run for run in found if run.model == name),
        preset.facts.differs,
        preset.facts.limits,
        preset.facts.choose,
    )


def markdown(card: Card) -> str:
    """A card as a page."""
    parts = [f"# {card.name}", card.about]
    if card.choose:
        parts.append(f"**When to take it.** {card.choose}")
    parts.append(
        f"Reads {card.reads.replace('_', ' ')}"
        + (f", after `{card.backbone}`" if card.backbone else "")
        + (". A reverse process ends in its lists." if card.diffuses else ". It has no diffusion.")
    )
    parts.append(f"    {card.command}")
    parts.append("\n".join(f"    {each.command}" for each in card.data))
    parts.append(f"Its authors rank so: {card.official}.")
    for heading, lines in (
        ("Published figures", [parity.line(each) for each in card.parity]),
        ("What differs from the paper and its code", card.differs),
        ("Limits", card.limits),
    ):
        if lines:
            parts.append("\n".join([f"## {heading}", "", *(f"- {each}" for each in lines)]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _command(name: str, data: str) -> str:
    return f"bin/train --model={name} --data=PATH --preset={data}"
