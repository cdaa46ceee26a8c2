"""Which settings a run starts from: those of a preset, or those of a file."""

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrec_diff.config import presets, stored
from jaxrec_diff.config.experiment import Experiment, Phase
from jaxrec_diff.data.sources import dataset_name


class Settings(NamedTuple):
    """An experiment and where its settings come from."""

    experiment: Experiment
    origin: str  # a phrase for the terminal


class Chosen(NamedTuple):
    """What the bare flags of `bin/train` and `bin/tune` name."""

    name: str  # of the preset
    source: str  # of the data
    settings: Settings
    by_file: bool = False  # settings of a json file are a user's own, whatever is in it

    def typed(self, names: Collection[str]) -> tuple[str, ...] | None:
        """The fields that a user set, `train.batch-size`; None is all.

        Args:
          names: those of flags or of settings of Python.
        """
        return None if self.by_file else tuple(name.replace("_", "-") for name in names)


def preset(name: str, dataset: str) -> Settings:
    """The settings that `configs/NAME.py` has for a data set.

    Raises:
      ValueError: on an unknown name, with the nearest known one.
    """
    made = presets.load(name)
    experiment, origin = made.settings(dataset)
    if made.backbone and experiment.backbone is None:
        experiment = dataclasses.replace(experiment, backbone=phase(made.backbone, dataset))
    return Settings(experiment, origin)


def choose(bare: dict[str, str]) -> Chosen:
    """The settings that --model, --data, --preset and --backbone ask for.

    --preset is a data set whose settings are taken, or a json file of settings: what `bin/tune`
    found, or the `config.json` of a run. The file names its data, which --data overrides.

    Raises:
      ValueError: on an unknown name or a file that cannot be used.
    """
    if "model" not in bare:
        names = ", ".join(presets.preset_names())
        raise ValueError(f"name a model: --model=NAME, one of {names}")
    name, settings_of = bare["model"], bare.get("preset", "")
    by_file = settings_of.endswith(".json")
    if by_file:
        kept = read(Path(settings_of))
        if kept.name != name:
            raise ValueError(f"{settings_of} holds settings of {kept.name}, not of {name}")
        source, settings, settings_of = bare.get("data", kept.source), kept.settings, ""
    else:
        source = bare.get("data", "synthetic")
        if settings_of:
            _check_published(name, settings_of)
        settings = preset(name, settings_of or dataset_name(source))
    if "backbone" in bare:
        of = settings_of or dataset_name(source)
        changed = with_backbone(settings.experiment, bare["backbone"], of)
        settings = settings._replace(experiment=changed)
    return Chosen(name, source, settings, by_file)


NO_BACKBONE = "none"  # of settings that do without
FAST = "fast"  # a sampler's kind that stands for what a preset has measured
_KIND, _STEPS = "model.sampler.kind", "model.sampler.steps"


def fast(name: str, dataset: str) -> presets.Fast:
    """What `--sampler=fast` means for the settings that a preset has for a data set.

    Raises:
      ValueError: if nobody has measured it.
    """
    made = presets.load(name)
    of = made.named(dataset)
    if of in made.fast:
        return made.fast[of]
    if not hasattr(made.default.model, "sampler"):
        raise ValueError(f"{name} walks no reverse process that --sampler=fast could shorten")
    measured = sorted(made.fast)
    raise ValueError(
        f"--sampler=fast has not been measured for {name} with its {of} settings"
        + (f", but with those of {', '.join(measured)}" if measured else "")
        + "; name a kind and --sampler-steps, or let benchmarks/fast.py measure a trained run"
    )


def is_fast(settings: Mapping[str, Any]) -> bool:
    """Whether dotted settings ask for the fast sampler."""
    return settings.get(_KIND) == FAST


def with_fast(settings: Mapping[str, Any], name: str, dataset: str) -> dict[str, Any]:
    """Dotted settings, the sampler's kind "fast" among them as what it stands for.

    Raises:
      ValueError: if nobody has measured it, or steps are set beside it.
    """
    if not is_fast(settings):
        return dict(settings)
    if _STEPS in settings:
        raise ValueError("--sampler=fast brings its own number of steps; leave out --sampler-steps")
    found = {f"model.{field}": value for field, value in fast(name, dataset).model.items()}
    return {k: v for k, v in settings.items() if k != _KIND} | found


def unlike_measured(experiment: Experiment, name: str, dataset: str) -> list[str]:
    """Settings of a model that are not those with which its fast sampler was measured.

    The sampler's own, and what the fast one sets, do not count.

    Args:
      experiment: to be sampled from.
      name: of the preset.
      dataset: that the settings are for.
    """
    there = dataclasses.asdict(presets.load(name).settings(dataset)[0].model)
    here, known = (
        dict(stored.flattened(each)) for each in (dataclasses.asdict(experiment.model), there)
    )
    free = fast(name, dataset).model
    return [
        f"model.{field}={value!r} (there {known[field]!r})"
        for field, value in here.items()
        if value != known[field] and field not in free and not field.startswith("sampler.")
    ]


def _check_published(name: str, dataset: str) -> None:
    """Refuses a data set that a model has no settings of its own for.

    Raises:
      ValueError: naming the nearest one that it has some for.
    """
    made = presets.load(name)
    known = sorted(made.published.keys() | made.ours.keys())
    if dataset in known:
        return
    if not known:
        raise ValueError(f"--preset={dataset}: {name} has settings for no data set; leave it out")
    near = difflib.get_close_matches(dataset, known, 1, 0.5)
    raise ValueError(
        f"--preset={dataset}: "
        + (f"did you mean {near[0]}? " if near else "")
        + f"{name} has settings for {', '.join(known)}"
    )


def read(path: Path) -> Chosen:
    """The settings in a json file, which holds them as the `config.json` of a run does.

    Raises:
      ValueError: if the file is damaged or cannot be read as it was meant.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist; name a json file of settings")
    kept = stored.read_json(path)
    stored.check_schema(kept, path)
    for name in ("preset", "source", "model"):
        if name not in kept:
            raise ValueError(f"{path} holds no settings that can be used: it has no {name!r}")
    kept.pop("schema", None)
    try:
        name, source = kept.pop("preset"), kept.pop("source")
        like = preset(name, dataset_name(source)).experiment
        if kept.get("backbone") is not None:
            like = with_backbone(like, kept["backbone"]["preset"], dataset_name(source))
        elif kept.get("embeddings"):
            like = with_backbone(like, kept["embeddings"], dataset_name(source))
        experiment = stored.from_json(like, kept)
    except stored.UnknownField as error:
        raise ValueError(f"{path} {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(
            f"{path} holds no settings that can be used: they are not laid out as those of a run"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} holds no settings that can be used: {error}") from None
    return Chosen(name, source, Settings(experiment, f"settings of {path}"), by_file=True)


def phase(name: str, dataset: str) -> Phase:
    """The settings of a preset as an earlier phase.

    Raises:
      ValueError: on an unknown name, or a preset that has an earlier phase itself.
    """
    chosen = preset(name, dataset).experiment
    if chosen.backbone is not None:
        raise ValueError(f"{name} needs a backbone itself and cannot be one")
    return Phase(preset=name, model=chosen.model, train=chosen.train, eval=chosen.eval)


def with_backbone(experiment: Experiment, backbone: str, dataset: str) -> Experiment:
    """The experiment on another backbone: a preset's name, an npz file of its arrays, or "none".

    Raises:
      ValueError: if the experiment takes none, or on an unknown name.
    """
    if experiment.backbone is None and not experiment.embeddings:
        raise ValueError(
            f"--backbone={backbone} was given, but this model starts from no other; leave it out"
        )
    if backbone == NO_BACKBONE:
        return dataclasses.replace(experiment, backbone=None, embeddings="")
    if backbone.endswith(".npz"):
        return dataclasses.replace(experiment, backbone=None, embeddings=backbone)
    return dataclasses.replace(experiment, backbone=phase(backbone, dataset), embeddings="")
