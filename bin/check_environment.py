"""Says whether this Python has what a pyproject.toml asks for.

    python check_environment.py pyproject.toml [EXTRA ...]

Exit code 0, or 1 and one line about the first thing that is missing. Reads metadata only: nothing
is imported, so that it takes a fraction of a second.
"""

from __future__ import annotations  # so that an old Python gets as far as its own refusal

import operator
import re
import sys

COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}

# An accelerator is present if any of these is, whichever extra of jax brought it.
PLUGINS = {"cuda": ("jax-cuda12-plugin", "jax-cuda13-plugin"), "tpu": ("libtpu",)}


def release(version: str) -> tuple[int, ...]:
    """`1.2.3rc1` as (1, 2, 3), padded so that 1.2 equals 1.2.0."""
    numbers = [int(part) for part in re.findall(r"\d+", re.split(r"[^\d.]", version)[0])]
    return tuple((numbers + [0, 0, 0, 0])[:4])


def inside(version: str, bounds: str) -> bool:
    """Whether a version obeys `>=1,<2`."""
    return all(
        COMPARE[sign](release(version), release(bound))
        for sign, bound in re.findall(r"([<>=]+)\s*([\d.]+)", bounds)
    )


def missing(path: str, extras: list[str]) -> str | None:
    """The first requirement that is not met, or None."""
    import tomllib
    from importlib import metadata

    def installed(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    with open(path, "rb") as file:
        project = tomllib.load(file)["project"]
    if not inside(".".join(map(str, sys.version_info[:3])), project["requires-python"]):
        return f"Python {project['requires-python']}"
    wanted = list(project["dependencies"])
    for extra in extras:
        if extra not in PLUGINS:
            wanted += project["optional-dependencies"][extra]
        elif not any(installed(name) for name in PLUGINS[extra]):
            return " or ".join(PLUGINS[extra])
    for requirement in wanted:
        found = re.match(r"([\w.-]+)(?:\[[^]]*\])?(.*)", requirement)
        assert found is not None, requirement
        version = installed(found[1])
        if version is None or not inside(version, found[2]):
            return f"{requirement} (it has {version or 'none'})"
    return None


if __name__ == "__main__":
    old = sys.version_info < (3, 11)  # no tomllib there
    lacks = "Python 3.11 or newer" if old else missing(sys.argv[1], sys.argv[2:])
    if lacks:
        print(lacks)
    sys.exit(lacks is not None)
