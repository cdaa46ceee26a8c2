"""What all tests share: eight virtual CPU devices, steady properties, the folder of real data."""

import os
from pathlib import Path

# Before anything imports jax. Tests of one device take a mesh of `jax.devices()[:1]`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()

# Tests of the report write it themselves; every other training would only take longer.
os.environ.setdefault("JAXREC_REPORT", "0")

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


@pytest.fixture(scope="session")
def clicks(tmp_path_factory) -> Path:
    """A csv of another shape than the usual ones: ids of text, ISO times, a column of nothing."""
    import numpy as np

    rng = np.random.default_rng(5)
    lines = ["visitor,product,when,price"]
    for user in range(70):
        at = np.datetime64("2024-01-01T00:00:00") + rng.integers(0, 1000)
        for item in rng.choice(40, rng.integers(4, 12), replace=False):
            at = at + rng.integers(1, 5000)
            lines.append(f"u-{user:02d},shoe-{item:02d},{at}Z,")
    path = tmp_path_factory.mktemp("clicks") / "clicks.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def clicks_run(clicks) -> Path:
    """A workdir of a small DimeRec on `clicks`; tests must leave it as it is."""
    from jaxrec_diff import cli

    workdir = clicks.parent / "run"
    flags = [
        "--data.user=visitor", "--data.item=product", "--data.timestamp=when", "--data.max-len=8",
        "--model.width=8", "--model.num-steps=4", "--model.num-negatives=16",
        "--train.batch-size=32", "--train.num-epochs=2", "--eval.batch-size=64", "--devices=1",
    ]  # fmt: skip
    command = ["train", "--model=dimerec", f"--data={clicks}", f"--workdir={workdir}", *flags]
    assert cli.main(command) == 0
    return workdir
