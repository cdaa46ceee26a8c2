"""What all tests share: eight virtual CPU devices, steady properties, the folder of real data."""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

# Before anything imports jax. Tests of one device take a mesh of `jax.devices()[:1]`.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
_FLAGS = {
    "xla_force_host_platform_device_count": 8,
    # Tests compile for longer than they run, so their machine code is made with less care. Emitted
    # without MLIR, in one piece, a program of a few operations takes a third less to compile.
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": 1,
}
for _name, _value in _FLAGS.items():
    if _name not in os.environ.get("XLA_FLAGS", ""):
        _given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{_given} --{_name}={_value}".strip()

# Tests of the report write it themselves; every other training would only take longer.
os.environ.setdefault("JAXREC_REPORT", "0")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The first example of a test compiles, so a deadline would judge the compiler.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")


_GROWTH = 1.5e9  # bytes
_kept = [0.0]  # bytes that a worker held when programs were let go


@pytest.fixture(autouse=True)
def bounded_memory():
    """Lets compiled programs go where they pile up: a megabyte each, and thousands in a worker."""
    yield
    if "jax" in sys.modules and _held() > _kept[0] + _GROWTH:
        sys.modules["jax"].clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # what is free goes back, or the next look counts it
        _kept[0] = _held()


def _held() -> float:
    """Bytes of memory that this process holds, or its peak where only that is told."""
    if sys.platform == "linux":
        return float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


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


@pytest.fixture
def untrained():
    """A function of a preset's name: the model with its initial arrays, on a small data set."""
    return _untrained


_SMALL = {
    "devices": "1", "data.max-len": "6", "data.synthetic.num-users": "50",
    "data.synthetic.num-items": "30", "data.synthetic.num-interests": "4",
    "data.synthetic.max-length": "9", "train.batch-size": "16", "model.width": "8",
    "model.num-steps": "24", "eval.batch-size": "64",
    "backbone.train.batch-size": "16", "backbone.model.width": "8",
}  # fmt: skip


def _untrained(name: str):
    """A preset's model with its initial arrays, and random ones in place of a backbone's."""
    import jax
    import numpy as np

    from jaxrec_diff import config
    from jaxrec_diff.experiments import phases, restore, runs
    from jaxrec_diff.models import registry

    wanted = config.preset(name, "synthetic").experiment
    known = config.flag_names(wanted)
    small = _SMALL
    if name == "diffuasr":  # convolutions take long to compile
        small = small | {"model.denoiser": "mlp", "model.mlp-hidden": "16"}
    if name == "preferdiff":  # whose 21 strided steps are not among 24
        small = small | {"model.sampler.steps": "8"}
    wanted = config.parse(wanted, [f"--{k}={v}" for k, v in small.items() if k in known])
    run = runs.prepare(name, wanted, "synthetic")
    counts = run.dataset.train_counts.copy()
    counts[[2, 17]] = 0  # as if nobody had trained on them
    dataset, arrays = run.dataset._replace(train_counts=counts), {}
    needs = [choice[0] for choice in registry.system(wanted.model).requires]
    if wanted.backbone is not None:
        needs = registry.system(wanted.backbone.model).exports
    if needs:
        sizes = {"users": dataset.num_users, "items": dataset.num_items}
        rng = np.random.default_rng(3)
        arrays = {
            array: rng.normal(size=(sizes[array.split("_")[-1]], 8)).astype(np.float32)
            for array in needs
        }
    (own,) = (phase for phase in run.phases if phase.title == name)
    own = phases.changed(own, dataset=dataset, exports=arrays)
    model, batcher = phases.model_of(own), own.batcher
    index = np.arange(2, dtype=np.int32)
    example = jax.jit(batcher.example)(batcher.train, index, index, jax.random.key(2))
    variables = jax.jit(model.init)(jax.random.key(1), example)
    return restore.Restored(own, model, *variables)
