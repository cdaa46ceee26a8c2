"""What the package hands on: by name, lazily, and as type checkers see it."""

import ast
import importlib
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import jaxrec_diff
from jaxrec_diff import _version, api, config

ROOT = Path(__file__).parent.parent
FUNCTIONS = tuple(name for name in api.__all__ if name[0].islower())


def seen_by_type_checkers(package) -> dict[str, str]:
    """Name -> where it is from, of the imports under `if TYPE_CHECKING`."""
    tree = ast.parse(Path(package.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, jaxrec_diff\n"
        "assert {'train', 'samplers', '__version__'} <= set(dir(jaxrec_diff))\n"
        "jaxrec_diff.__version__\n"
        "print(*{'jax', 'numpy', 'flax', 'pyarrow'} & set(sys.modules))\n"
        "from jaxrec_diff import samplers, schedules, losses\n"
        "assert jaxrec_diff.forward.__name__ in sys.modules\n"
        "import jaxrec_diff as again\n"
        "assert again.samplers is samplers and callable(again.train)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


@pytest.mark.parametrize("name", sorted(jaxrec_diff._MODULES))
def test_a_mathematical_module_is_there_by_its_flat_name(name):
    home = jaxrec_diff._MODULES[name]
    assert getattr(jaxrec_diff, name) is importlib.import_module(home)
    assert seen_by_type_checkers(jaxrec_diff)[name] == home


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_api_is_there(name):
    assert getattr(jaxrec_diff, name) is getattr(api, name)
    assert seen_by_type_checkers(jaxrec_diff)[name] == f"jaxrec_diff.api.{name}"


@pytest.mark.parametrize("package", [jaxrec_diff, config])
def test_all_names_are_listed_and_typed(package):
    typed = seen_by_type_checkers(package)
    assert set(typed) <= set(dir(package))
    for name, home in typed.items():
        module, _, inside = home.rpartition(".")
        wanted = getattr(importlib.import_module(module), inside, None)
        assert getattr(package, name) is (wanted or importlib.import_module(home))


def test_what_config_hands_on_is_what_type_checkers_see():
    handed = {name for names in config._HOMES.values() for name in names}
    assert handed == set(seen_by_type_checkers(config))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'jaxrec_diff' has no attribute 'sampler'"):
        getattr(jaxrec_diff, "sampler")  # noqa: B009
    with pytest.raises(ImportError):
        exec("from jaxrec_diff import sampler")


def test_the_version_is_that_of_the_project(monkeypatch):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)  # a checkout that is not installed
    assert _version._installed_or_checked_out() == project["version"]
    monkeypatch.setattr(metadata, "version", {project["name"]: "9.9"}.get)
    assert _version._installed_or_checked_out() == "9.9"
    assert jaxrec_diff.__version__ == _version.__version__


def test_what_stands_beside_the_package_names_its_version_and_license():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {project['version']}\n" in citation
    assert f"\nlicense: {project['license']}\n" in citation
    assert f"\n## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()
    assert project["license-files"] == ["LICENSE"] and "Apache" in (ROOT / "LICENSE").read_text()
