"""The Transformer against numbers that were computed in float64 without it, and its identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.nets import transformer
from jaxrec_diff.nets.transformer import Transformer, places


def fill(k, shape, scale=1.0):
    n = np.arange(np.prod(shape), dtype=np.float64)
    return (scale * np.sin(k + 0.37 * n**2)).reshape(shape)


def affine(kernel, bias=0.01):
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.full(kernel.shape[1], bias)}


def unit_norm(width):
    return {"norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)}}


def tiny_params(width=8, hidden=32):
    """Two blocks filled by formula, as the golden networks of DiffuRec and DiffRec2 are."""

    def block(b):
        square = (width, width)
        return {
            "query": affine(fill(100 * b + 2, square, 0.5)),
            "key": affine(fill(100 * b + 3, square, 0.5)),
            "value": affine(fill(100 * b + 4, square, 0.5)),
            "out": affine(fill(100 * b + 5, square, 0.5)),
            "feed_in": affine(fill(100 * b + 6, (width, hidden), 0.5)),
            "feed_out": affine(fill(100 * b + 7, (hidden, width), 0.5)),
            "norm_attention": unit_norm(width),
            "norm_feed": unit_norm(width),
        }

    return {"blocks_0": block(0), "blocks_1": block(1), "norm_out": unit_norm(width)}


def released_norm(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)


TINY = Transformer(width=8, num_blocks=2, num_heads=4, hidden=32)
# Time embedding at t = 3 and what is injected, from the same float64 source as the outputs.
TEMB = [0.44765196, -1.18037234, -0.68095559, -0.32116519, 0.01306882, 0.07719554, -0.02418188,
        0.27005672]  # fmt: skip
TOKENS = np.array([0, 0, 2, 5])
DIFFUREC = {
    "query": [-0.81151975, 1.21358049, 0.57504091, -0.95519244, 1.80372838, -0.23379216,
              -0.95484509, -0.63700034],
    "key": [-0.62225296, 1.2081643, 0.48847726, -0.90510706, 1.89747702, -0.50565242, -0.88224339,
            -0.67886275],
    "none": [-0.87478097, 1.23043411, 0.58605803, -0.98496046, 1.74983399, -0.13720297,
             -1.00258517, -0.56679657],
}  # fmt: skip


def diffurec_input(tokens=TOKENS):
    y = np.sin(20 + 0.1 * np.arange(8)) + np.array(TEMB)
    z = released_norm(fill(1, (6, 8))[tokens]) + 0.001 * y
    return jnp.asarray(z[None], jnp.float32)


def apply(net, params, x, where, **kwargs):
    with jax.default_matmul_precision("highest"):
        run = jax.jit(net.apply, static_argnames="deterministic")
        return run({"params": params}, x, where, deterministic=True, **kwargs)


def initial(net, key, *args, **kwargs):
    """Initial arrays, made in one program."""
    return jax.jit(lambda key: net.init(key, *args, deterministic=True, **kwargs))(key)


@pytest.mark.parametrize("mode", DIFFUREC)
def test_pre_norm_blocks_under_each_mask(mode):
    where = places(jnp.asarray(TOKENS[None] > 0), mode)
    out = apply(TINY, tiny_params(), diffurec_input(), where)[0, -1]
    np.testing.assert_allclose(out, DIFFUREC[mode], atol=5e-6)


@pytest.mark.parametrize("n", [1, 500])
def test_pre_norm_blocks_with_positions_and_steps(n):
    # DiffRec2: a clean history, the noised target last, steps on all places, a key mask.
    noised = {
        1: [0.26001735, 0.9823356, 1.00398941, 0.9677889, 0.15238565, -0.97795435, 0.94355717,
            -0.98168029],
        500: [1.02999438, 1.22771348, 1.21948734, 1.18566945, 0.92426759, 0.56576566, 1.05445242,
              0.4568174],
    }[n]  # fmt: skip
    expected = {
        1: [0.37973404, -1.00044272, -0.05343168, 1.31227848, 0.5502751, -0.25677912, 1.00511418,
            -1.93674829],
        500: [-0.92826777, -0.94053102, -0.38362264, 1.75377601, 0.2065634, -0.18595302,
              1.43051196, -0.95247693],
    }[n]  # fmt: skip
    angle = n / 10000 ** (np.arange(4) / 4)
    step = np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(-1)
    x = np.concatenate([fill(1, (7, 8))[[0, 2, 5]], [noised]]) + fill(11, (4, 8), 0.1) + step
    where = places(jnp.array([[False, True, True, True]]))
    out = apply(TINY, tiny_params(), jnp.asarray(x[None], jnp.float32), where)[0, -1]
    np.testing.assert_allclose(out, expected, atol=5e-6)


def ligr_params():
    """One gated block of width 4, whose linear maps are W[o, i] = .3 sin(n + o + 2 i)."""

    def linear(n, rows=4, columns=4, bias=True):
        o, i = np.arange(columns)[None, :], np.arange(rows)[:, None]
        made = {"kernel": jnp.asarray(0.3 * np.sin(n + o + 2 * i), jnp.float32)}
        if bias:
            made["bias"] = jnp.asarray(0.01 * np.cos(np.arange(columns) + n), jnp.float32)
        return made

    def norm(j):
        angle = j + np.arange(4)
        scale, shift = 1 + 0.1 * np.cos(angle), 0.05 * np.sin(angle)
        return {"norm": {"scale": jnp.asarray(scale), "bias": jnp.asarray(shift)}}

    names = ("query", "key", "value", "out", "gate_attention", "gate_feed")
    block = {name: linear(n) for n, name in enumerate(names, start=1)}
    block["feed_in"] = linear(7, columns=8, bias=False)
    block["feed_by"] = linear(8, columns=8, bias=False)
    block["feed_out"] = linear(9, rows=8, bias=False)
    return {"blocks_0": block | {"norm_attention": norm(0), "norm_feed": norm(1)}}


def ligr(**settings):
    return Transformer(
        width=4, num_blocks=1, num_heads=1, hidden=8, block="ligr", causal=True, epsilon=1e-5,
        kernels="xavier", last_norm=False, **settings,
    )  # fmt: skip


def test_a_gated_block():
    r, c = np.arange(3)[:, None], np.arange(4)[None, :]
    x = jnp.asarray(0.5 * np.sin(1 + r + 2 * c), jnp.float32)[None]
    where = places(jnp.ones((1, 3), bool))
    want = [
        [0.395119146828, -0.139202741345, -0.68483963588, 0.336064966864],
        [0.275492732992, -0.590992449419, -0.163401335663, 0.715714869039],
        [-0.0353312556182, -0.484741226755, 0.435059403632, 0.337037626799],
    ]
    out = apply(ligr(), ligr_params(), x, where)
    np.testing.assert_allclose(out[0], want, atol=5e-7)
    # without its feed-forward part
    params = ligr_params()
    params["blocks_0"]["feed_out"]["kernel"] *= 0.0
    want = [
        [0.373051645583, -0.0324507051079, -0.542628355467, 0.376643757493],
        [0.375864560103, -0.458043811084, -0.138788347499, 0.600048137318],
        [-0.0187022639136, -0.516478156788, 0.376268199023, 0.30749918082],
    ]
    np.testing.assert_allclose(apply(ligr(), params, x, where)[0], want, atol=5e-7)
    # one place alone, of a network whose later places are others
    params, last = ligr_params(), jnp.array([1])
    read = apply(ligr(), params, x.at[:, 2].set(7.0), where, read=last)
    np.testing.assert_allclose(read, out[:, 1], atol=5e-7)
    made = initial(ligr(), jax.random.key(0), x, where)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == 6 * 16 + 3 * 4 * 8 + 10 * 4


class TestSasrecBlocks:
    """Two sequences of a BERT4Rec encoder of width 4, and SASRec's causal one."""

    SEQ = np.array([[0, 0, 3, 1, 5], [0, 2, 4, 6, 1]])
    POS = np.array([[0, 0, 1, 2, 3], [0, 1, 2, 3, 4]])

    def params(self):
        o, i = np.arange(4)[None, :], np.arange(4)[:, None]

        def projection(k):
            return affine(0.3 * np.sin(1 + k + o + 2 * i)) | {
                "bias": jnp.asarray(0.01 * np.cos(np.arange(4) + k), jnp.float32)
            }

        norm = {
            "norm": {
                "scale": jnp.asarray(1 + 0.1 * np.cos(np.arange(4)), jnp.float32),
                "bias": jnp.asarray(0.05 * np.sin(np.arange(4)), jnp.float32),
            }
        }
        block = {"query": 0, "key": 1, "value": 2, "out": 3, "feed_in": 0, "feed_out": 0}
        block = {name: projection(k) for name, k in block.items()}
        block |= {"norm_attention": norm, "norm_feed": norm}
        return {"blocks_0": block, "blocks_1": block, "norm_out": norm}

    def inputs(self):
        r, c = np.arange(12)[:, None], np.arange(4)[None, :]
        table = 0.5 * np.sin(1 + r + 2 * c)
        items = table * (np.arange(12)[:, None] > 0)
        return jnp.asarray(items[self.SEQ] * 2.0 + table[self.POS], jnp.float32)

    def net(self, causal):
        return Transformer(
            width=4, num_blocks=2, num_heads=1, hidden=4, block="sasrec", activation="relu",
            causal=causal, epsilon=1e-8,
        )  # fmt: skip

    @pytest.mark.parametrize("causal", [False, True])
    def test_golden(self, causal):
        where = places(jnp.asarray(self.SEQ > 0), "none")
        out = apply(self.net(causal), self.params(), self.inputs(), where)
        expected = [
            [[-1.038649237302, 1.713852271706, 0.159358298977, -0.678330421879],
             [1.049959998512, -1.582752354593, -0.171355574794, 0.739806033676]],
            [[-1.038348384829, 1.713871739607, 0.159365674846, -0.678600423292],
             [1.051091172652, -1.582617134348, -0.171499208117, 0.73889894326]],
        ][causal]  # fmt: skip
        np.testing.assert_allclose(out[:, -1], expected, atol=5e-6)
        np.testing.assert_allclose(
            out[0, 0], [0, 0.04207354924, 0.045464871341, 0.007056000403], atol=1e-6
        )
        if causal:
            np.testing.assert_allclose(
                out[1, 1],
                [0.133860110015, -1.705030676559, 0.617800834489, 0.852796437149],
                atol=5e-6,
            )

    def test_a_place_does_not_see_later_ones(self):
        where = places(jnp.asarray(self.SEQ > 0))
        x = self.inputs()
        changed = x.at[:, 3:].set(x[:, 3:] + 1.0)
        before, after = (apply(self.net(True), self.params(), y, where) for y in (x, changed))
        np.testing.assert_allclose(after[:, :3], before[:, :3], atol=1e-6)
        assert np.abs(after[:, 3:] - before[:, 3:]).max() > 1e-2


@pytest.mark.parametrize("block", ["pre", "sasrec", "post"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mode", ["query", "key", "none"])
def test_one_read_place_is_that_place_of_all(block, causal, mode):
    net = Transformer(width=8, num_blocks=2, num_heads=2, hidden=12, block=block, causal=causal)
    x = jax.random.normal(jax.random.key(0), (3, 5, 8))
    mask = jnp.arange(5) < jnp.array([[5], [2], [1]])
    where, read = places(mask, mode), jnp.array([4, 1, 0])
    params = initial(net, jax.random.key(1), x, where)["params"]
    whole = apply(net, params, x, where)
    one = apply(net, params, x, where, read=read)
    np.testing.assert_allclose(one, whole[jnp.arange(3), read], atol=1e-6)


@pytest.mark.parametrize("mode", ["query", "none"])
def test_one_pad_of_weight_p_is_p_equal_pads(mode):
    params, spread = tiny_params(), diffurec_input()
    all_places = places(jnp.array([[False, False, True, True]]), mode)
    collapsed = places(jnp.array([[False, True, True]]), mode, jnp.array([[2.0, 1.0, 1.0]]))
    whole = apply(TINY, params, spread, all_places)
    short = apply(TINY, params, spread[:, 1:], collapsed)
    np.testing.assert_allclose(short, whole[:, 1:], atol=2e-6)


def test_without_positions_only_the_last_item_has_a_place():
    where = places(jnp.ones((1, 4), bool), "query")
    out = [
        apply(TINY, tiny_params(), diffurec_input(np.array(tokens)), where)[0, -1]
        for tokens in ([1, 2, 3, 4], [3, 1, 2, 4], [1, 2, 4, 3])
    ]
    np.testing.assert_allclose(out[1], out[0], atol=2e-6)
    assert np.abs(out[2] - out[0]).max() == pytest.approx(1.16, abs=0.005)


def test_attention_with_dropout_has_the_mean_of_attention_without():
    # The two ways through `attend` are different code; the mean over draws ties them together.
    block = transformer.Block(
        width=4, num_heads=2, hidden=4, block="pre", activation="relu", kernels="fan_in",
        causal=False, dropout_rate=0.3, epsilon=1e-12,
    )  # fmt: skip
    x, where = jax.random.normal(jax.random.key(0), (1, 3, 4)), places(jnp.array([[1, 1, 0]]) > 0)
    params = initial(block, jax.random.key(1), x, where, read=None)

    def attend(key, deterministic):
        return block.apply(
            params, x, x, where, None, deterministic, rngs={"dropout": key}, method="attend"
        )

    drawn = jax.jit(jax.vmap(lambda key: attend(key, False)))(
        jax.random.split(jax.random.key(2), 20000)
    )
    np.testing.assert_allclose(drawn.mean(0), attend(jax.random.key(2), True), atol=0.01)


def test_initial_values_and_counts():
    net = Transformer(width=128, num_blocks=4, num_heads=4, hidden=512, kernels="mixed")
    x, where = jnp.zeros((1, 2, 128)), places(jnp.ones((1, 2), bool))
    params = initial(net, jax.random.key(0), x, where)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 793_088 + 256
    block = params["blocks_2"]
    np.testing.assert_allclose(np.std(block["out"]["kernel"]), 0.0884, rtol=0.03)
    np.testing.assert_allclose(np.std(block["feed_in"]["kernel"]), 0.0559, rtol=0.03)
    assert np.abs(block["feed_in"]["kernel"]).max() > 3 * 0.0559  # a truncated one stays below 2.3
    assert np.abs(block["query"]["kernel"]).max() == pytest.approx(128**-0.5, rel=1e-2)
    assert np.abs(block["feed_out"]["bias"]).max() == pytest.approx(512**-0.5, rel=0.1)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of num_heads=3, got 8"):
        Transformer(width=8, num_blocks=1, num_heads=3, hidden=8).init(
            jax.random.key(0), jnp.zeros((1, 2, 8)), places(jnp.ones((1, 2), bool)),
            deterministic=True,
        )  # fmt: skip


def test_rows_that_follow_look_at_the_remembered_places_and_themselves():
    # Two rows after a history of four, in a plain loop over rows, heads and places, float64.
    rng = np.random.default_rng(4)
    history, rows = rng.normal(size=(4, 8)), rng.normal(size=(2, 8))
    real = np.array([False, True, True, True])
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tiny_params())

    def dense(p, x):
        return x @ p["kernel"] + p["bias"]

    def attended(p, query, places):
        out = np.zeros(8)
        for h in range(4):
            cut = slice(2 * h, 2 * h + 2)
            q = dense(p["query"], query)[cut]
            scores = np.array([q @ dense(p["key"], x)[cut] for x in places]) / np.sqrt(2)
            share = np.exp(scores - scores.max())
            for weight, x in zip(share / share.sum(), places, strict=True):
                out[cut] += weight * dense(p["value"], x)[cut]
        return dense(p["out"], out)

    def fed(p, z):
        hidden = dense(p["feed_in"], released_norm(z))
        gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        return z + dense(p["feed_out"], gelu)

    want, before = rows, history
    for name in ("blocks_0", "blocks_1"):
        p, keys = weights[name], [released_norm(x) for x in before[real]]
        want = np.array(
            [fed(p, z + attended(p, released_norm(z), [*keys, released_norm(z)])) for z in want]
        )
        before = np.array([fed(p, z + attended(p, released_norm(z), keys)) for z in before])
    where = places(jnp.asarray(real[None]))

    def both(net, x, y):
        memory = net.remember(x, where, deterministic=True)
        return net.follow(y, where, memory, deterministic=True)

    given = (jnp.asarray(part[None], jnp.float32) for part in (history, rows))
    with jax.default_matmul_precision("highest"):
        got = jax.jit(lambda *of: TINY.apply({"params": tiny_params()}, *of, method=both))(*given)
    np.testing.assert_allclose(got[0], released_norm(want), atol=2e-5)
