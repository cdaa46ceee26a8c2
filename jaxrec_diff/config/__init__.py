"""Settings: what an experiment is, its presets, its flags, and how it is stored."""

from typing import TYPE_CHECKING

from jaxrec_diff import lazy

if TYPE_CHECKING:
    from jaxrec_diff.config.choice import Chosen as Chosen
    from jaxrec_diff.config.choice import Settings as Settings
    from jaxrec_diff.config.choice import choose as choose
    from jaxrec_diff.config.choice import fast as fast
    from jaxrec_diff.config.choice import is_fast as is_fast
    from jaxrec_diff.config.choice import phase as phase
    from jaxrec_diff.config.choice import preset as preset
    from jaxrec_diff.config.choice import unlike_measured as unlike_measured
    from jaxrec_diff.config.choice import with_backbone as with_backbone
    from jaxrec_diff.config.choice import with_fast as with_fast
    from jaxrec_diff.config.experiment import NO_FIGURE as NO_FIGURE
    from jaxrec_diff.config.experiment import RUN_CONTROL as RUN_CONTROL
    from jaxrec_diff.config.experiment import Experiment as Experiment
    from jaxrec_diff.config.experiment import Phase as Phase
    from jaxrec_diff.config.flags import configure as configure
    from jaxrec_diff.config.flags import field_values as field_values
    from jaxrec_diff.config.flags import flag_names as flag_names
    from jaxrec_diff.config.flags import flag_words as flag_words
    from jaxrec_diff.config.flags import given as given
    from jaxrec_diff.config.flags import parse as parse
    from jaxrec_diff.config.flags import show_help as show_help
    from jaxrec_diff.config.presets import Fast as Fast
    from jaxrec_diff.config.presets import Preset as Preset
    from jaxrec_diff.config.presets import preset_names as preset_names
    from jaxrec_diff.config.presets import search_space as search_space
    from jaxrec_diff.config.stored import difference as difference
    from jaxrec_diff.config.stored import flattened as flattened
    from jaxrec_diff.config.stored import from_json as from_json
    from jaxrec_diff.config.stored import to_json as to_json

_HOMES = {
    "experiment": ("Experiment", "NO_FIGURE", "Phase", "RUN_CONTROL"),
    "flags": (
        "configure",
        "field_values",
        "flag_names",
        "flag_words",
        "given",
        "parse",
        "show_help",
    ),
    "presets": ("Fast", "Preset", "preset_names", "search_space"),
    "choice": (
        "Chosen",
        "Settings",
        "choose",
        "fast",
        "phase",
        "preset",
        "with_backbone",
        "is_fast",
        "unlike_measured",
        "with_fast",
    ),
    "stored": ("difference", "flattened", "from_json", "to_json"),
}

# Not imported here: an experiment needs JAX, the list of presets does not.
if not TYPE_CHECKING:  # so that a checker knows an unknown name
    __getattr__, __dir__ = lazy.handed_on(
        __name__,
        names={name: f"{__name__}.{home}" for home, names in _HOMES.items() for name in names},
    )
