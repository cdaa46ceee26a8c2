"""What a figure needs beside it to be believed."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxrec_diff.experiments.run import Prepared


def provenance(prepared: Prepared) -> dict[str, Any]:
    """What a figure needs beside it to be believed."""
    return {
        "command": prepared.command,
        "seed": prepared.experiment.seed,
        "device": str(prepared.mesh.devices.flat[0].device_kind),
        "devices": [str(device.device_kind) for device in prepared.mesh.devices.flat],
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {
            name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        }
        | {"python": platform.python_version()},
        "commit": _commit(),
    }


def _commit() -> str:
    root = Path(__file__).parents[2]
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"
