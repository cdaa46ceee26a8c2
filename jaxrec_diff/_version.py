"""Which version of the package this is."""

from importlib import metadata
from pathlib import Path


def _installed_or_checked_out() -> str:
    try:
        return metadata.version("jaxrec-diff")
    except metadata.PackageNotFoundError:
        import tomllib

        project = Path(__file__).parents[1] / "pyproject.toml"
        return tomllib.loads(project.read_text())["project"]["version"]


__version__ = _installed_or_checked_out()
