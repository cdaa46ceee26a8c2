"""A program compiled in earnest, and one lowered for a platform that is not here."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxrec_diff.benchmarking import program

X, W = jnp.ones((8, 16)), jnp.ones((16, 16))


def chain(x, w):
    def move(x, _):
        scale = jax.lax.platform_dependent(x, cpu=lambda x: 2.0, default=lambda x: x.sum() + 1.0)
        return jnp.tanh(x @ w) * scale, None

    return jax.lax.scan(move, x, None, length=50)[0]


def test_a_compiled_program_runs_and_is_counted():
    made = program.compiled(jax.jit(chain), X, W)
    assert made.run(X, W).shape == X.shape and made.compile_s > 0 < made.trace_s
    found = program.counted(made)
    assert found.product_flops == 50 * 2 * 8 * 16 * 16
    assert found.flops == found.product_flops + 50 * 2 * 8 * 16
    assert found.argument_bytes == X.nbytes + W.nbytes and found.output_bytes == X.nbytes
    assert found.memory == found.argument_bytes + found.output_bytes + found.temporary_bytes
    assert found.bytes > 50 * (X.nbytes + W.nbytes) and found.executed > 50
    assert found.host_in_loops == () and found.unknown_loops == 0


def test_an_argument_that_is_taken_over_counts_once():
    made = program.compiled(jax.jit(lambda x: x + 1.0, donate_argnums=0), jnp.ones(1000))
    assert program.counted(made).memory < 1.5 * 4000


def test_compilation_finds_nothing_on_disk_and_leaves_nothing(tmp_path):
    before = {name: jax.config.values[name] for name in (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes", "jax_enable_compilation_cache",
    )}  # fmt: skip
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()
    try:
        fn = jax.jit(lambda x: jnp.cos(x) * 3.0)
        program.compiled(fn, X)
        assert list(tmp_path.iterdir()) == []
        jax.jit(lambda x: jnp.sin(x) * 3.0).lower(X).compile()  # the cache is on again
        assert list(tmp_path.iterdir()) != []
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.mark.parametrize("platform", program.PLATFORMS)
def test_a_lowered_program_is_that_of_its_platform(platform):
    found = program.lowered(jax.jit(chain), X, W, platform=platform)
    assert found.product_flops == 50 * 2 * 8 * 16 * 16
    # and the sum, which the program for a CPU has not
    assert found.flops == found.product_flops + 50 * (2 * 8 * 16 + 8 * 16 + 1)
    assert 5 <= found.operations < 40 and found.bytes > 50 * (X.nbytes + W.nbytes)
    assert (found.compile_s, found.memory, found.executed) == (None, None, None)
    here = program.counted(program.compiled(jax.jit(chain), X, W))  # neither takes the other's
    assert here.flops == here.product_flops + 50 * 2 * 8 * 16


def test_other_platforms_are_refused():
    with pytest.raises(ValueError, match="tpu or cuda, got 'cpu'"):
        program.lowered(jax.jit(chain), X, W, platform="cpu")
