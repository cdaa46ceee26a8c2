"""Names that a package hands on from its modules, each imported when it is asked for."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

# Must stay without imports beyond the standard library: `--help` passes through here.


def handed_on(
    package: str,
    *,
    modules: Mapping[str, str] | None = None,
    names: Mapping[str, str] | None = None,
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Args:
      package: its `__name__`.
      modules: names that stand for whole modules.
      names: names that stand for what a module has under the same name.
    """
    whole, inside = modules or {}, names or {}

    def get(name: str) -> Any:
        if name in whole:
            return import_module(whole[name])
        if name in inside:
            return getattr(import_module(inside[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted({*vars(sys.modules[package]), *whole, *inside})
