"""A jitted function compiled in earnest, with what the compiled program is made of.

Nothing here runs it: `compiled` needs the shapes of its arguments, and `lowered` not even a device
of the platform that it is for.
"""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from jaxrec_diff.benchmarking import arithmetic, hlo

PLATFORMS = ("tpu", "cuda")  # that a program can be lowered for


class Program(NamedTuple):
    """One run of a program: what it computes, moves and holds. None is what nobody can know.

    Sizes and counts of a compiled program are of one device.
    """

    flops: float  # of all devices, from the jaxpr
    product_flops: float  # of matrix products and convolutions alone
    bytes: float  # moved; of a lowered program as if nothing were fused
    operations: int
    fusions: int | None
    executed: float | None  # operations as often as they run
    host_in_loops: tuple[str, ...] | None
    unknown_loops: int  # loops that count as often as the caller said
    trace_s: float  # jaxpr and StableHLO
    compile_s: float | None  # XLA, without any cache
    argument_bytes: int | None
    output_bytes: int | None
    temporary_bytes: int | None
    memory: int | None  # the three together, without what an output takes over from an argument


class Compiled(NamedTuple):
    """A program that is ready to run."""

    run: Any
    jaxpr: Any
    trace_s: float
    compile_s: float


def compiled(fn: Any, *args: Any) -> Compiled:
    """Compiles a jitted function for arguments like these, arrays or their shapes and dtypes."""
    start = time.perf_counter()
    traced = fn.trace(*args)
    lowered = traced.lower()
    middle = time.perf_counter()
    with _uncached():
        made = lowered.compile()
    return Compiled(made, traced.jaxpr, middle - start, time.perf_counter() - middle)


def counted(made: Compiled, unknown: int = 1) -> Program:
    """What a compiled program is made of; `unknown` are the turns of loops whose number is an
    argument."""
    work = arithmetic.of(made.jaxpr, unknown)
    found = hlo.count(made.run.as_text(), unknown)
    memory = made.run.memory_analysis()
    sizes: tuple[int | None, ...] = (None,) * 4
    if memory is not None:
        argument, output = memory.argument_size_in_bytes, memory.output_size_in_bytes
        temporary = memory.temp_size_in_bytes
        total = argument + output + temporary - memory.alias_size_in_bytes
        sizes = argument, output, temporary, total
    return Program(
        work.flops, work.products, found.bytes, found.operations, found.fusions, found.executed,
        found.host_in_loops, found.unknown_loops, made.trace_s, made.compile_s, *sizes,
    )  # fmt: skip


def lowered(fn: Any, *args: Any, platform: str, unknown: int = 1) -> Program:
    """The same function as a program of another platform, which is not compiled.

    Raises:
      ValueError: on a platform that JAX cannot lower for.
    """
    if platform not in PLATFORMS:
        raise ValueError(f"a program can be lowered for {' or '.join(PLATFORMS)}, got {platform!r}")
    start = time.perf_counter()
    traced = fn.trace(*args)
    module = traced.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    seconds = time.perf_counter() - start
    work = arithmetic.of(traced.jaxpr, unknown, platform)
    kinds = _operations(module.operation)
    operations = sum(count for kind, count in kinds.items() if kind not in _UNCOUNTED)
    return Program(
        work.flops, work.products, work.traffic, operations, None, None, None, work.unknown_loops,
        seconds, None, None, None, None, None,
    )  # fmt: skip


# What gives a program its form, and computes nothing.
_UNCOUNTED = frozenset(
    "builtin.module func.func func.return func.call stablehlo.return stablehlo.constant "
    "stablehlo.while stablehlo.case".split()
)


def _operations(operation: Any) -> Counter[str]:
    """How often every kind of operation stands in a module."""
    found: Counter[str] = Counter()

    def visit(one: Any) -> None:
        found[one.operation.name] += 1
        for region in one.operation.regions:
            for block in region.blocks:
                for inner in block.operations:
                    visit(inner)

    visit(operation)
    return found


@contextmanager
def _uncached() -> Iterator[None]:
    """Compiles without the cache on disk, whose state JAX looks at once a process."""
    before = jax.config.values["jax_enable_compilation_cache"]
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
