"""Counts of compiled programs, loops multiplied, against counts by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxrec_diff.benchmarking import hlo

X, W = jnp.ones((8, 16)), jnp.ones((16, 16))


def text(fn, *args):
    return jax.jit(fn).lower(*args).compile().as_text()


def count(fn, *args, **kwargs):
    return hlo.count(text(fn, *args), **kwargs)


def scanned(times):
    return lambda x, w: lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=times)[0]


def nested(x, w):
    return lax.fori_loop(0, 5, lambda i, x: scanned(7)(x, w) + 1.0, x)


def test_a_longer_loop_is_the_same_program_and_more_work():
    short, long = (count(scanned(times), X, W) for times in (50, 500))
    assert (short.operations, short.fusions) == (long.operations, long.fusions)
    outside = short.operations - (long.executed - short.executed) / 450
    assert 0 <= outside < short.operations
    assert (long.bytes - short.bytes) / 450 == pytest.approx((long.bytes - outside) / 500, rel=0.1)


def test_bytes_of_a_loop_are_those_of_its_products():
    """A turn reads x and w, writes x, and moves it for the function on it, at least once."""
    short, long = (count(scanned(times), X, W) for times in (50, 500))
    turn = (long.bytes - short.bytes) / 450
    assert 4 * (2 * 8 * 16 + 16 * 16) <= turn <= 4 * (12 * 8 * 16 + 3 * 16 * 16)


def test_loops_inside_loops_multiply():
    inner, once = count(scanned(7), X, W), count(nested, X, W)
    assert once.executed > 5 * 7 * (inner.executed / 7 - 2)
    assert once.unknown_loops == 0


def test_a_loop_whose_end_is_an_argument_counts_what_it_is_given():
    def until(n, x):
        return lax.fori_loop(0, n, lambda i, x: jnp.tanh(x @ W), x)

    made = text(until, jnp.int32(3), X)
    one, ten = hlo.count(made), hlo.count(made, unknown=10)
    assert one.unknown_loops == ten.unknown_loops == 1
    assert ten.executed > 5 * one.executed


def test_what_a_loop_cuts_from_a_table_is_no_whole_table():
    table = jnp.ones((1000, 64))

    def sums(table):
        return lax.scan(lambda total, row: (total + row, None), jnp.zeros(64), table)[0]

    assert count(sums, table).bytes < 10 * table.nbytes


def test_a_callback_in_a_loop_is_seen_and_one_outside_is_not():
    def host(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    inside = count(lambda x: lax.fori_loop(0, 3, lambda i, x: host(x), x), jnp.ones(3))
    outside = count(lambda x: jnp.tanh(host(x)), jnp.ones(3))
    assert len(inside.host_in_loops) == 1 and "callback" in inside.host_in_loops[0]
    assert outside.host_in_loops == () == count(scanned(9), X, W).host_in_loops


BRANCHES = """HloModule either
%half (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p)
}
%same (q: f32[8]) -> f32[8] {
  ROOT %q = f32[8]{0} parameter(0)
}
%fused (t: f32[100,8], i: s32[], u: f32[1,8]) -> f32[100,8] {
  %t = f32[100,8]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  %u = f32[1,8]{1,0} parameter(2)
  ROOT %d = f32[100,8]{1,0} dynamic-update-slice(%t, %u, %i, %i)
}
ENTRY %main (x: f32[8], c: pred[], t: f32[100,8], i: s32[]) -> (f32[8], f32[100,8]) {
  %x = f32[8]{0} parameter(0)
  %c = pred[] parameter(1)
  %t = f32[100,8]{1,0} parameter(2)
  %i = s32[] parameter(3)
  %r = f32[1,8]{1,0} bitcast(%x)
  %w = f32[100,8]{1,0} fusion(%t, %i, /*index=2*/%r), kind=kLoop, calls=%fused
  %e = f32[8]{0} conditional(%c, %x, %x), branch_computations={%half, %same}
  ROOT %o = (f32[8]{0}, f32[100,8]{1,0}) tuple(%e, %w)
}
"""


def test_branches_count_half_and_an_update_in_place_what_it_writes():
    found = hlo.count(BRANCHES)
    assert (found.operations, found.fusions, found.executed) == (2, 1, 1.5)
    update = 32 + 4 + 32  # the row read, the place read, the row written
    assert found.bytes == update + 0.5 * (32 + 32)


def test_other_text_is_refused():
    with pytest.raises(ValueError, match="no HLO module"):
        hlo.count("module @jit_f {}")
