"""SU-Net against numbers of the released network, filled by formula and run in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.nets import sunet
from jaxrec_diff.nets.sunet import SUNet


def filled(path, leaf):
    """The released layers' parameters by formula, in the layout of this network."""
    name = jax.tree_util.keystr(path)
    last = np.arange(leaf.shape[-1], dtype=np.float64)
    if "norm" in name and "scale" in name:
        return 1 + 0.1 * np.cos(last)
    if "norm'" in name and "bias" in name:
        return 0.05 * np.sin(last)
    if "bias" in name:
        return 0.01 * np.cos(last)
    if leaf.ndim == 2:
        return 0.1 * np.sin(1 + last[None, :] + 2 * np.arange(leaf.shape[0])[:, None])
    i, j, fan_in, out = np.indices(leaf.shape)
    return 0.1 * np.sin(1 + out + 2 * fan_in + 3 * i + 5 * j)


def inputs(items, width, condition=64):
    j, m, b = np.arange(width), np.arange(items)[:, None], np.arange(2)[:, None, None]
    x = np.sin(0.1 * (j + 1) * (m + 1)) + 0.05 * b
    c = np.cos(0.2 * (np.arange(condition) + 1)) + 0.1 * np.arange(2)[:, None]
    return jnp.asarray(x), jnp.array([0, 500]), jnp.asarray(c)


def released(items, width, **settings):
    """(network, parameters by formula, inputs) at the released size; call under x64."""
    net = SUNet(**({"channels": 8} | settings))
    x, t, c = inputs(items, width, width)
    with jax.enable_x64(False):
        single = [jnp.zeros(part.shape) for part in (x, t, c)]
        shapes = jax.eval_shape(net.init, jax.random.key(0), *single)["params"]
    return net, jax.tree_util.tree_map_with_path(filled, shapes), (x, t, c)


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(("dense_side", "tile_channels"), [(0, 0), (2, 8)])
def test_output_of_the_released_network(dense_side, tile_channels):
    net, params, args = released(10, 64, dense_side=dense_side, tile_channels=tile_channels)
    out = np.asarray(jax.jit(net.apply)({"params": params}, *args))
    close = dict(rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(out.sum((1, 2)), [7.026467427385, 7.045072203316], **close)
    np.testing.assert_allclose(
        np.abs(out).sum((1, 2)), [107.402172520202, 107.588582388205], **close
    )
    expected = {
        (0, 0, 0): [-0.017373048463, -0.113579441877, -0.048370508118, 0.110875182971,
                    -0.108630325097, -0.112256415089],
        (0, 9, 60): [0.333277132991, -0.097219923234, 0.4443653134, -0.235465386492],
        (1, 2, 30): [0.713091720114, 0.189208465807, 0.052854361141, 0.235892225198],
    }  # fmt: skip
    for (b, m, first), values in expected.items():
        np.testing.assert_allclose(out[b, m, first : first + len(values)], values, **close)


STAGES = {
    "conv_in": (0.695613659415, 166.405528688384),
    "down_0_0": (4.125952142475, 221.850524334874),
    "down_0_1": (6.445707141034, 285.617592787431),
    "down_0_sample": (-0.680005802726, 15.634040492148),
    "down_1_0": (-0.458637027162, 66.220224480556),
    "down_2_sample": (-0.00490289993, 0.517496213379),
    "mid_0": (-0.241213817473, 1.344663775314),
    "mid_attention": (-0.331408541683, 1.583017110662),
    "mid_1": (0.382893387695, 1.948960522322),
    "up_3_0": (-0.447544468855, 2.442473003071),
    "up_0_2": (2.045227021578, 77.352336511112),
}


def test_every_stage_of_the_released_network():
    net, params, args = released(10, 64)
    run = jax.jit(lambda p: net.apply({"params": p}, *args, capture_intermediates=True))
    _, kept = run(params)
    found = kept["intermediates"]
    for name, (total, size) in STAGES.items():
        out = np.asarray(found[name]["__call__"][0])[0]
        np.testing.assert_allclose([out.sum(), np.abs(out).sum()], [total, size], rtol=1e-9)
    time, guide = (np.asarray(found[name]["__call__"][0]) for name in ("time", "guide"))
    np.testing.assert_allclose(
        time[1, :4], [0.003913469607, 0.000647667999, -0.00321359658, -0.004120295284], rtol=1e-8
    )
    np.testing.assert_allclose(
        guide[0, :4], [0.014267871342, 0.009915863231, -0.003552743805, -0.013754974571], rtol=1e-8
    )


@pytest.mark.parametrize(
    ("items", "width", "totals", "sizes"),
    [
        (5, 64, [2.976598816447, 2.775010672908], [58.169369616673, 50.506178205935]),
        # a picture of side 16: with attention after every block of the first level
        (3, 256, [20.961777860797, 21.554663451569], [131.014198252021, 133.941020770793]),
    ],
)
def test_output_at_other_sizes(items, width, totals, sizes):
    net, params, args = released(items, width)
    out = np.asarray(jax.jit(net.apply)({"params": params}, *args))
    np.testing.assert_allclose(out.sum((1, 2)), totals, rtol=1e-9)
    np.testing.assert_allclose(np.abs(out).sum((1, 2)), sizes, rtol=1e-9)


@pytest.mark.parametrize(
    ("items", "width", "settings", "parameters"),
    [
        (1, 64, {}, 140_513),
        (5, 64, {}, 141_093),
        (10, 64, {}, 141_818),
        (20, 64, {}, 143_268),
        (10, 64, {"guided": False}, 138_682),
        (3, 256, {}, 148_467),
        (10, 256, {}, 149_482),
        (10, 64, {"channels": 16}, 554_218),
        (10, 64, {"channels": 32}, 2_190_794),
    ],
)
def test_number_of_parameters(items, width, settings, parameters):
    assert count(released(items, width, **settings)[1]) == parameters


@pytest.mark.slow
def test_weights_that_can_never_act():
    # a quarter of the released network: all but the centre of kernels on single pixels, and the
    # query and key of an attention that sees one position
    net, params, args = released(10, 64)
    loss = lambda p: jnp.sum(jnp.sin(net.apply({"params": p}, *args)))
    grads = jax.jit(jax.grad(loss))(params)
    dead = sum(int((g == 0).sum()) for g in jax.tree.leaves(grads) if g.ndim == 4)
    assert dead >= 34_816
    attention = grads["mid_attention"]
    idle = [attention[n][leaf] for n in ("query", "key") for leaf in ("kernel", "bias")]
    assert sum(leaf.size for leaf in idle) == 544
    assert max(np.abs(leaf).max() for leaf in idle) < 1e-15


def test_norm_of_a_pair():
    norm = sunet.GroupNorm()
    pairs = np.array([[0.3, 0.1], [1e-4, 0.0], [5e-4, 0.0]] + [[0.0, 0.0]] * 5).reshape(1, 1, 1, 16)
    params = jax.jit(norm.init)(jax.random.key(0), jnp.asarray(pairs))
    out = np.asarray(jax.jit(norm.apply)(params, jnp.asarray(pairs))).reshape(8, 2)
    expected = [0.9999500037, 0.0499376169, 0.242535625]
    np.testing.assert_allclose(out[:3], [[v, -v] for v in expected], rtol=1e-8)


@pytest.mark.parametrize("width", [14, 100])
def test_other_widths_are_padded_and_cut(width):
    net, params, (x, t, c) = released(3, width, num_blocks=1)
    apply = jax.jit(net.apply)
    out = apply({"params": params}, x, t, c)
    assert out.shape == x.shape
    # what is padded is zero, so a wider picture of the same side sees the same numbers
    r = sunet.side(width)
    wider = jnp.pad(x, ((0, 0), (0, 0), (0, r * r - width)))
    whole = apply({"params": params}, wider, t, c)
    np.testing.assert_allclose(whole[..., :width], out, rtol=1e-12)


@pytest.mark.parametrize(("channels", "rank"), [(8, 8), (16, 10)])
def test_rank_of_what_the_network_sees(channels, rank):
    # conv_in alone reads x: with fewer channels than items it cannot see all of it
    conv = sunet.Conv(channels, "same", dense_side=0, tile_channels=0)
    basis = jnp.eye(10 * 16).reshape(10 * 16, 10, 4, 4).transpose(0, 2, 3, 1)
    params = jax.jit(conv.init)(jax.random.key(1), basis.astype(jnp.float32))
    params = {"params": params["params"] | {"bias": jnp.zeros(channels)}}
    seen = np.asarray(jax.jit(conv.apply)(params, basis.astype(jnp.float32))).reshape(10 * 16, -1)
    assert np.linalg.matrix_rank(seen) == rank * 16


def test_dropout_is_keyed_by_row():
    net, params, (x, t, c) = released(3, 4, num_blocks=1)
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(3), i))(jnp.arange(2))
    apply = jax.jit(net.apply)
    whole = apply({"params": params}, x, t, c, keys)
    alone = apply({"params": params}, x[1:], t[1:], c[1:], keys[1:])
    np.testing.assert_allclose(alone, whole[1:], rtol=1e-9)
    assert np.abs(whole - apply({"params": params}, x, t, c)).max() > 1e-3


def loops(x, kernel, move):
    """A 3x3 convolution as released, pixel by pixel and tap by tap."""
    size, r, _, _ = x.shape
    if move == "up":
        x, r = x[:, np.arange(2 * r) // 2][:, :, np.arange(2 * r) // 2], 2 * r
    before, stride = (0, 2) if move == "down" else (1, 1)
    out = np.zeros((size, r // stride, r // stride, kernel.shape[-1]))
    for p, q, i, j in np.ndindex(r // stride, r // stride, 3, 3):
        row, column = stride * p + i - before, stride * q + j - before
        if 0 <= row < r and 0 <= column < r:
            out[:, p, q] += x[:, row, column] @ kernel[i, j]
    return out


@pytest.mark.parametrize("move", ["same", "down", "up"])
@pytest.mark.parametrize(
    ("r", "dense_side", "tile_channels"), [(2, 2, 0), (4, 4, 0), (4, 0, 2), (8, 0, 2), (12, 0, 2)]
)
def test_every_form_is_the_convolution(move, r, dense_side, tile_channels):
    rng = np.random.default_rng(r)
    x, kernel, bias = (
        rng.normal(size=(2, r, r, 3)),
        rng.normal(size=(3, 3, 3, 2)),
        rng.normal(size=2),
    )
    conv = sunet.Conv(2, move, dense_side=dense_side, tile_channels=tile_channels)
    params = {"params": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    out = jax.jit(conv.apply)(params, jnp.asarray(x))
    np.testing.assert_allclose(out, loops(x, kernel, move) + bias, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("move", ["same", "down", "up"])
@pytest.mark.parametrize(("r", "tile_channels"), [(6, 0), (8, 0), (8, 2)])
def test_gradients_of_every_form_are_those_of_a_bilinear_map(move, r, tile_channels):
    rng = np.random.default_rng(r)
    draw = lambda *shape: rng.normal(size=shape)
    to = {"same": r, "down": r // 2, "up": 2 * r}[move]
    x, kernel, outer = draw(2, r, r, 3), draw(3, 3, 3, 2), draw(2, to, to, 2)
    conv = sunet.Conv(2, move, dense_side=2, tile_channels=tile_channels)

    @jax.jit
    def gradients(x, kernel):
        def value(x, kernel):
            params = {"params": {"kernel": kernel, "bias": jnp.zeros(2)}}
            return jnp.sum(outer * conv.apply(params, x))

        return jax.grad(value, argnums=(0, 1))(x, kernel)

    of_x, of_kernel = gradients(x, kernel)
    # <outer, conv(dx, k)> and <outer, conv(x, dk)> for any direction
    dx, dk = draw(*x.shape), draw(*kernel.shape)
    np.testing.assert_allclose(np.sum(of_x * dx), np.sum(outer * loops(dx, kernel, move)))
    np.testing.assert_allclose(np.sum(of_kernel * dk), np.sum(outer * loops(x, dk, move)))


def test_tiles_are_taken_where_they_are_asked_for():
    # one product of 36 matrices: a plain convolution has none
    def products(channels, move="same", r=8, tile_channels=32):
        conv = sunet.Conv(channels, move, dense_side=2, tile_channels=tile_channels)
        x = jnp.zeros((1, r, r, channels), jnp.float32)
        program = jax.jit(conv.init_with_output).trace(jax.random.key(0), x)
        text = program.lower(lowering_platforms=("cpu",)).as_text()
        return text.count("stablehlo.dot_general"), text.count("stablehlo.convolution")

    assert products(32) == products(32, "up", 4) == (1, 0)
    assert products(24) == products(32, r=6) == (0, 1)
    assert products(32, "down") == (1, 0)  # of patches
    assert products(32, tile_channels=0) == (0, 1)


@pytest.mark.parametrize("form", [sunet.tiled, sunet.doubled_in_tiles])
def test_tiles_in_float32(form):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(8, 8, 8, 128)), rng.normal(size=(3, 3, 128, 8))
    exact = loops(x, kernel, "up" if form is sunet.doubled_in_tiles else "same")
    out = jax.jit(form)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    assert out.dtype == jnp.float32
    assert np.abs(out - exact).max() < 2e-4 * exact.std()
