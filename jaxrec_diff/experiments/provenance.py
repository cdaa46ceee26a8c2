"""What a figure needs beside it to be believed."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax


def provenance(command: str, seed: int, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """What a figure needs beside it to be believed."""
    return {
        "command": command,
        "seed": seed,
        "device": str(mesh.devices.flat[0].device_kind),
        "devices": [str(device.device_kind) for device in mesh.devices.flat],
        "platform": f"{platform.machine()} {os.cpu_count()} cores",
        "versions": {
            name: metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax", "numpy")
        }
        | {"python": platform.python_version()},
        "commit": commit(),
    }


def commit() -> str:
    """The commit of the checkout that this is, `-dirty` after it where files differ; "unknown"."""
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
