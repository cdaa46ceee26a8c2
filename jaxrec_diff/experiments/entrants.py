"""What the name of an entrant of a contest tells, before anything of it is run."""

import functools

from jaxrec_diff import config
from jaxrec_diff.experiments import runs

_SPLIT = "--data.split="


@functools.cache  # a preset is a file, and jobs are listed again and again
def seen(dataset: str, model: str, flags: tuple[str, ...] = ()) -> int:
    """How much of a history a preset sees, as `runs.seen` counts; 0 of a name that nobody knows.

    >>> seen("clicks", "dimerec"), seen("clicks", "diffrec"), seen("clicks", "mf")
    (2, 0, 0)
    >>> [seen("clicks", model, ("--data.split=global_time",)) for model in ("diffrec", "mf")]
    [1, 0]
    """
    if model not in config.preset_names():
        return 0
    split = [flag for flag in flags if flag.startswith(_SPLIT)]
    return runs.seen(config.parse(config.preset(model, dataset).experiment, split))


def reads_order(dataset: str, model: str) -> bool:
    """Whether a preset reads histories in their order, which alone can be shuffled.

    >>> reads_order("clicks", "dimerec"), reads_order("clicks", "mf")
    (True, False)
    """
    return seen(dataset, model) == 2


@functools.cache  # a preset is a file, and jobs are listed again and again
def diffuses(dataset: str, model: str) -> bool:
    """Whether a preset has a reverse process.

    >>> diffuses("clicks", "dimerec"), diffuses("clicks", "sasrec"), diffuses("clicks", "another")
    (True, False, False)
    """
    known = model in config.preset_names()
    return known and hasattr(config.preset(model, dataset).experiment.model, "sampler")
