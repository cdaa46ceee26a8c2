"""What all tests share: eight virtual CPU devices, steady properties, the folder of real data."""

import os
from pathlib import Path

# Before anything imports jax. Tests of one device take a mesh of `jax.devices()[:1]`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The first example of a test compiles, so a deadline would judge the compiler.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that JAXREC_DATA names; tests that need it are skipped where it is unset."""
    folder = os.environ.get("JAXREC_DATA")
    if not folder:
        pytest.skip("JAXREC_DATA is not set: it names a folder of real data sets")
    return Path(folder)
