"""Programs that run as several processes of one machine, which find each other over loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

_START = """\
import sys, jax
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(
    "127.0.0.1:{port}", {count}, int(sys.argv[1]),
    heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10,
)
"""


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many virtual devices."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in f]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    return os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": " ".join(flags)}


def outputs(program: str, *, count: int = 2, devices: int = 2, seconds: float = 120) -> list[str]:
    """What each of `count` processes prints that run a program on `devices` devices each."""
    code = _START.format(port=free_port(), count=count) + program
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)],
            env=environment(devices), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, said, strict=True):
        assert process.returncode == 0, errors
    return [out for out, _ in said]
