"""Systems are found through their settings: there is no list to keep."""

from importlib import import_module
from pathlib import Path

import pytest

from jaxrec_diff import config, models
from jaxrec_diff.batches.input import Input
from jaxrec_diff.batches.triplets import TRIPLETS, TRIPLETS_BY_USER
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.models import registry
from jaxrec_diff.models.ddrm import DDRMConfig
from jaxrec_diff.models.dreamrec import DreamRecConfig

MODULES = sorted(path.stem for path in Path(models.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_that_builds_a_model_declares_its_system(name):
    module = import_module(f"jaxrec_diff.models.{name}")
    if "build" not in vars(module):
        assert "SYSTEM" not in vars(module)
        return
    assert isinstance(module.SYSTEM, registry.System)
    assert module.SYSTEM.build is module.build
    assert registry.system(module.SYSTEM.config()) is module.SYSTEM


@pytest.mark.parametrize("name", config.preset_names())
def test_every_preset_has_a_system(name):
    chosen = config.preset(name, "synthetic").experiment
    system = registry.system(chosen.model)
    assert isinstance(registry.input_of(chosen.model), Input)
    assert (system.export is None) == (not system.exports)
    assert not system.generates or chosen.backbone is not None


def test_settings_choose_the_input():
    by_user, alike = DDRMConfig(triples="user"), DDRMConfig(triples="interaction")
    assert registry.input_of(by_user) is TRIPLETS_BY_USER
    assert registry.input_of(alike) is TRIPLETS


class Derived(DreamRecConfig):
    """Of a module that declares no system."""


@pytest.mark.parametrize("settings", [SamplerConfig(), Derived(), None])
def test_other_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"{type(settings).__name__} is no model's settings"):
        registry.system(settings)


def test_a_class_beside_the_settings_is_not_the_systems(monkeypatch):
    monkeypatch.setattr(Derived, "__module__", DreamRecConfig.__module__)
    with pytest.raises(ValueError, match="Derived is no model's settings"):
        registry.system(Derived())
