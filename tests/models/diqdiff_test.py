"""DiQDiff against numbers computed in float64 by a network written separately, and its laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import cut
from jaxrec_diff.batches.types import SequenceQuery, Sequences
from jaxrec_diff.config import preset
from jaxrec_diff.data.config import DataConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.diffusion import forward, process, samplers, timesteps
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import diffurec, diqdiff
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.diqdiff import DiQDiffConfig, Quantiser, latest_last
from jaxrec_diff.ops import quantize
from jaxrec_diff.ops import rng as ops_rng
from tests.models.compiled import applied, compiled
from tests.models.tables import filling, padded

D, ITEMS, LENGTH = 8, 5, 4
SPEC = DataSpec(num_users=9, num_items=ITEMS, max_len=LENGTH)
TINY = {"width": D, "num_blocks": 2, "num_heads": 4, "num_codes": 2}
SMALLER = TINY | {"num_blocks": 1, "sampler": SamplerConfig(spacing="leading", steps=2)}
CALM = {"dropout_rate": 0.0, "history_dropout_rate": 0.0}
SEQ = np.array([[2, 5, 0, 0], [1, 3, 4, 0], [2, 0, 0, 0]])
LABELS = jnp.array([0, 1, 0])
TARGETS = jnp.array([4, 2, 3])
XT = np.sin(20 + np.arange(3)[:, None] + 0.1 * np.arange(D))

CODE = [0.60522378, 0.63903575, 0.21792135, -0.07846338, -0.52318239, 0.31753546, -1.99963886,
        0.82156828]  # fmt: skip
OUT = [
    [-0.6460703, 1.41499356, 0.59147374, -1.03441841, 1.64127092, -0.34230955, -0.93363679,
     -0.69130316],
    [0.68324301, 0.87696725, 0.35282242, 0.40422467, -0.62522757, 0.98785588, -0.46857499,
     -2.21131068],
    [0.43479002, 1.71912212, 0.48555172, -1.39463136, 0.91015367, -0.54419429, -1.16104134,
     -0.44975055],
]  # fmt: skip
LOGITS = [
    [2.28404838, -2.12508034, -0.99307002, 0.38688229, 1.19471852, 2.01960539],
    [-0.89436527, 0.18399385, 1.68630345, 0.62700116, 2.44699876, -0.36784925],
    [3.31751802, -2.33409532, 1.05508752, -0.23385421, 0.95305592, 2.6178999],
]


def in_float64(test):
    @functools.wraps(test)
    def wrapped(*args, **kwargs):
        with jax.enable_x64(True):
            return test(*args, **kwargs)

    return wrapped


def fill(k, shape, scale=1.0):
    n = np.arange(np.prod(shape), dtype=np.float64)
    return (scale * np.sin(k + 0.37 * n**2)).reshape(shape)


def golden_params(dtype=jnp.float32):
    def dense(k, inside, out):
        return {"kernel": fill(k, (inside, out), 0.5), "bias": np.full(out, 0.01)}

    norm = {"norm": {"scale": np.ones(D), "bias": np.zeros(D)}}

    def block(b):
        names = ("query", "key", "value", "out")
        square = {name: dense(100 * b + 2 + i, D, D) for i, name in enumerate(names)}
        feed = {"feed_in": dense(100 * b + 6, D, 32), "feed_out": dense(100 * b + 7, 32, D)}
        return square | feed | {"norm_attention": norm, "norm_feed": norm}

    tree = {
        "items": fill(1, (ITEMS + 1, D)),
        "norm_in": norm,
        "step": {"inner": dense(8, D, 32), "outer": dense(9, 32, D)},
        "transformer": {"blocks_0": block(0), "blocks_1": block(1), "norm_out": norm},
    }
    return padded(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree), "items")


def state_of(num_codes=2, codebook=None):
    selector = {"kernel": jnp.zeros((LENGTH * D, num_codes)), "bias": jnp.zeros(num_codes)}
    book = jnp.zeros((num_codes, LENGTH, D)) if codebook is None else codebook
    return Quantiser(book, selector)


def force(monkeypatch):
    """The draws of the golden batch: its codes, t = 3 and its noised targets."""
    monkeypatch.setattr(quantize, "assign", lambda logits, gumbel=None: LABELS[: len(logits)])
    monkeypatch.setattr(timesteps, "uniform", lambda key, row, num_steps: jnp.full(row.shape, 3))
    monkeypatch.setattr(forward, "q_sample", lambda *args: jnp.asarray(XT, jnp.float32))


def golden_example(seq=SEQ):
    seq = tuple(jnp.asarray(s) for s in seq) if isinstance(seq, tuple) else jnp.asarray(seq)
    return Sequences(seq, TARGETS, jnp.ones(3), jnp.arange(3))


@pytest.mark.parametrize("lengths", ["one", "several"])
def test_golden_loss(monkeypatch, lengths):
    force(monkeypatch)
    model = compiled(diqdiff.build(DiQDiffConfig(**TINY, **CALM), SPEC))
    seq = SEQ if lengths == "one" else (SEQ[:2, :3], SEQ[2:, :1])
    with jax.default_matmul_precision("highest"):
        value, aux = model.loss(golden_params(), state_of(), jax.random.key(0), golden_example(seq))
    np.testing.assert_allclose(aux.metrics["recon"], 2.46202224, rtol=2e-6)
    np.testing.assert_allclose(aux.metrics["contrast"], 0.09615841, rtol=2e-5)
    np.testing.assert_allclose(value, 2.55818065, rtol=2e-6)
    assert aux.metrics["codes_used"] == 2
    # and the codebook of the batch is what the state keeps
    np.testing.assert_allclose(aux.state.codebook[0, -1], CODE, rtol=1e-5)


@in_float64
def test_golden_network():
    params = golden_params(jnp.float64)
    config = DiQDiffConfig(**TINY, **CALM)
    net = diffurec.DiffuRecNet(num_items=ITEMS, max_len=LENGTH, config=config.backbone())
    seq = latest_last(jnp.asarray(SEQ), LENGTH)
    np.testing.assert_array_equal(seq, [[0, 0, 2, 5], [0, 1, 3, 4], [0, 0, 0, 2]])
    history = applied(net)({"params": params}, seq, method="embed")
    found = quantize.code_means(history, LABELS, jnp.ones(3), 2)
    np.testing.assert_allclose(found.means[0, -1], CODE, atol=1e-8)
    injected = 0.001 * (XT + applied(net)({"params": params}, jnp.full(3, 3), method="steps"))
    z = 0.6 * history + 0.4 * quantize.pick(found.means, LABELS) + injected[:, None]
    out = applied(net)({"params": params}, z, seq > 0, method=diqdiff.read_last)
    # attention's scores are rounded to float32 by jax.nn.dot_product_attention
    np.testing.assert_allclose(out, OUT, atol=1e-6)
    np.testing.assert_allclose(out @ params["items"][: ITEMS + 1].T, LOGITS, atol=2e-6)


def test_golden_points_of_one_step_at_evaluation(monkeypatch):
    force(monkeypatch)
    only = process.Steps(np.array([3]), np.ones(1), *np.zeros((3, 1)))
    monkeypatch.setattr(diqdiff, "plan", lambda config, levels: (only, False))
    monkeypatch.setattr(ops_rng, "normal", lambda key, row, shape: jnp.asarray(XT, jnp.float32))
    config = DiQDiffConfig(**TINY)
    query = SequenceQuery(jnp.asarray(SEQ[:, :3]), jnp.arange(3))
    official = compiled(diqdiff.build(config, SPEC, protocol="official"))
    with jax.default_matmul_precision("highest"):
        found = official.sample(golden_params(), state_of(), jax.random.key(0), query)
        # the same codes kept from training give the same points without the batch
        history = official_history()
        book = quantize.code_means(history, LABELS, jnp.ones(3), 2).means
        frozen = compiled(diqdiff.build(config, SPEC))
        kept = frozen.sample(golden_params(), state_of(codebook=book), jax.random.key(0), query)
    np.testing.assert_allclose(found, OUT, atol=5e-6)
    np.testing.assert_allclose(kept, OUT, atol=5e-6)
    head = official.head(golden_params(), state_of())
    np.testing.assert_allclose(found @ head.table.T, np.roll(LOGITS, -1, axis=1), atol=2e-5)
    assert rank.item_rows(frozen.head(golden_params(), state_of())).shape == (ITEMS, D)


def official_history():
    config = DiQDiffConfig(**TINY)
    net = diffurec.DiffuRecNet(num_items=ITEMS, max_len=LENGTH, config=config.backbone())
    seq = latest_last(jnp.asarray(SEQ), LENGTH)
    return applied(net)({"params": golden_params()}, seq, method="embed")


def test_released_noise_of_the_reverse_steps():
    betas = diffurec.released_betas("trunc_lin", 32)
    for t, released, meant in (
        (1, 1.0047585361, 0.0974397256),
        (2, 1.0127130412, 0.1589522505),
        (16, 1.1782628969, 0.5727848332),
        (31, 1.3736884936, 0.7968681862),
    ):
        for noise, want in (("exp_var", released), ("std_small", meant)):
            rows = samplers.ddpm_rows(forward.levels(betas), noise=noise)
            np.testing.assert_allclose(rows.c[31 - t], want, rtol=1e-9)
            assert rows.c[-1] == 0
    c = forward.posterior(forward.levels(betas))
    before = np.sqrt(np.append(1.0, forward.alphas_cumprod(betas)[:-1]))
    now = np.sqrt(forward.alphas_cumprod(betas))
    np.testing.assert_allclose(c.c1 + c.c2 * now, before, rtol=1e-12)


def parameters(svq, num_items=12_101, num_codes=32, max_len=50):
    spec = DataSpec(num_users=1, num_items=num_items, max_len=max_len)
    model = compiled(diqdiff.build(DiQDiffConfig(svq=svq, num_codes=num_codes), spec))
    batch = Sequences(
        jnp.ones((2, max_len), jnp.int32), jnp.ones(2, jnp.int32), jnp.ones(2), jnp.arange(2)
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), batch)
    return variables.params, variables.state


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_number_of_parameters():
    params, state = parameters("official")
    assert count(params["items"]) - filling(12_102, 128) == 1_549_056
    assert count([params["transformer"][f"blocks_{i}"] for i in range(4)]) == 793_088
    assert count(params["step"]) == 131_712
    assert count([params["norm_in"], params["transformer"]["norm_out"]]) == 512
    assert count(state.selector) == 204_832
    assert count(params) + count(state.selector) - filling(12_102, 128) == 2_679_200
    trained, kept = parameters("paper")
    assert count(trained) - filling(12_102, 128) == 2_679_200 and count(kept) == 32 * 50 * 128


def random_example(rows=12, seed=0):
    rng = np.random.default_rng(seed)
    seq = rng.integers(1, ITEMS + 1, (rows, LENGTH))
    seq *= np.arange(LENGTH) < rng.integers(1, LENGTH + 1, (rows, 1))
    target = rng.integers(1, ITEMS + 1, rows)
    return Sequences(jnp.asarray(seq), jnp.asarray(target), jnp.ones(rows), jnp.arange(rows))


def test_nothing_reaches_the_released_selector():
    batch = random_example()
    model = compiled(diqdiff.build(DiQDiffConfig(**SMALLER, **CALM), SPEC))
    params, state = model.init(jax.random.key(0), batch)

    def value(selector):
        return model.loss(params, state._replace(selector=selector), jax.random.key(1), batch)[0]

    for leaf in jax.tree.leaves(jax.jit(jax.grad(value))(state.selector)):
        np.testing.assert_array_equal(leaf, 0.0)


def test_paper_form_trains_its_selector_against_a_constant_codebook():
    batch = random_example()
    model = compiled(
        diqdiff.build(DiQDiffConfig(**SMALLER, **CALM, svq="paper", recon="mse"), SPEC)
    )
    params, state = model.init(jax.random.key(0), batch)
    seq = latest_last(batch.seq, LENGTH)
    net = diffurec.DiffuRecNet(
        num_items=ITEMS, max_len=LENGTH, config=DiQDiffConfig(**SMALLER).backbone()
    )
    of_net = {"params": {k: v for k, v in params.items() if k != "selector"}}
    np.testing.assert_allclose(
        state.codebook, applied(net)(of_net, seq[:2], method="embed"), rtol=1e-6
    )

    def value(params, codebook):
        given = Quantiser(codebook, ())
        return model.loss(params, given, jax.random.key(1), batch)

    grads, aux = jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True))(params, state.codebook)
    assert np.abs(grads[0]["selector"]["kernel"]).max() > 0
    np.testing.assert_array_equal(grads[1], 0.0)
    # the codebook after the step: means of the members, in a plain loop
    history = np.asarray(applied(net)(of_net, seq, method="embed"), np.float64)
    logits = history.reshape(12, -1) @ np.asarray(params["selector"]["kernel"]) + np.asarray(
        params["selector"]["bias"]
    )
    drawn = ops_rng.gumbel(jax.random.split(jax.random.key(1), 5)[2], jnp.arange(12), (2,))
    labels = np.argmax(logits + np.asarray(drawn), axis=1)
    for code in range(2):
        members = history[labels == code]
        want = members.mean(axis=0) if len(members) else np.asarray(state.codebook[code])
        np.testing.assert_allclose(aux.state.codebook[code], want, rtol=1e-4, atol=1e-5)
    # rows of weight 0 are nobody's members
    filled = jax.tree.map(lambda x: jnp.concatenate([x, x[:3]]), batch)
    filled = filled._replace(weight=filled.weight.at[12:].set(0.0), row_id=jnp.arange(15))
    kept = model.loss(params, state, jax.random.key(1), filled)[1].state.codebook
    np.testing.assert_allclose(kept, aux.state.codebook, rtol=1e-4, atol=1e-5)


def test_squared_error_is_summed_over_coordinates(monkeypatch):
    force(monkeypatch)
    model = compiled(
        diqdiff.build(DiQDiffConfig(**TINY, **CALM, recon="mse", contrast_weight=0.0), SPEC)
    )
    value, _ = model.loss(golden_params(), state_of(), jax.random.key(0), golden_example())
    want = np.mean(np.sum((fill(1, (ITEMS + 1, D))[TARGETS] - np.array(OUT)) ** 2, axis=1))
    np.testing.assert_allclose(value, want, rtol=1e-5)


def test_who_else_is_asked_for_changes_released_lists_only():
    batch = random_example()
    query = SequenceQuery(batch.seq, batch.row_id)
    model = compiled(diqdiff.build(DiQDiffConfig(**SMALLER), SPEC))
    params, state = model.init(jax.random.key(0), batch)
    part = jax.tree.map(lambda x: x[:5], query)
    key = jax.random.key(4)
    frozen, released = (
        model.sample,
        jax.jit(diqdiff.build(DiQDiffConfig(**SMALLER), SPEC, protocol="official").sample),
    )
    whole = frozen(params, state, key, query)
    np.testing.assert_allclose(frozen(params, state, key, part), whole[:5], atol=1e-5)
    apart = released(params, state, key, part) - released(params, state, key, query)[:5]
    assert np.abs(apart).max() > 1e-2
    # rows that only fill a batch are nobody
    filled = SequenceQuery(
        jnp.concatenate([part.seq, jnp.zeros((3, LENGTH), jnp.int32)]),
        jnp.concatenate([part.row_id, jnp.full(3, -1)]),
    )
    np.testing.assert_allclose(
        released(params, state, key, filled)[:5], released(params, state, key, part), atol=1e-5
    )
    # the other codes are the variant
    np.testing.assert_allclose(
        model.variants["official_codes"](params, state, query),
        released(params, state, jax.random.key(0), query),
        atol=1e-5,
    )


def test_frozen_codes_are_the_noiseless_choice_from_the_codebook():
    batch = random_example()
    model = compiled(diqdiff.build(DiQDiffConfig(**SMALLER), SPEC))
    params, state = model.init(jax.random.key(0), batch)
    query = SequenceQuery(batch.seq, batch.row_id)
    ramp = jnp.linspace(-9.0, 9.0, D)  # a constant would vanish in a LayerNorm
    moved = state._replace(codebook=state.codebook + ramp)
    before, after = (model.sample(params, s, jax.random.key(0), query) for s in (state, moved))
    assert np.abs(after - before).max() > 1e-2
    flat = np.asarray(
        diffurec.DiffuRecNet(
            num_items=ITEMS, max_len=LENGTH, config=DiQDiffConfig(**SMALLER).backbone()
        ).apply({"params": params}, latest_last(batch.seq, LENGTH), method="embed")
    ).reshape(12, -1)
    logits = flat @ np.asarray(state.selector["kernel"]) + np.asarray(state.selector["bias"])
    chosen = np.argmax(logits, axis=1)
    lone = state.codebook.at[1 - chosen[0]].set(5.0 * ramp)  # the code that user 0 did not choose
    same = model.sample(params, state._replace(codebook=lone), jax.random.key(0), query)
    np.testing.assert_allclose(same[0], before[0], atol=1e-6)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"width": 10}, "nearest is 8"),
        ({"num_codes": 0}, "num-codes"),
        ({"contrast_temperature": 0.0}, "say 0.07"),
        ({"schedule": "linear", "num_steps": 8}, "at least 20"),
        ({"sampler": SamplerConfig(kind="closed_form")}, "nearest is mean"),
        ({"sampler": SamplerConfig(steps=40)}, "nearest valid value is 32"),
    ],
)
def test_bad_settings_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        DiQDiffConfig(**settings)


# First batch of the released code: total loss and contrast.
ANCHORS = {"amazon-beauty": (45.54, 0.140), "ml-1m": (55.00, 0.0053)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ANCHORS)
def test_first_batch_of_real_data_costs_what_the_released_code_says(real_data, name):
    experiment = preset("diqdiff", name).experiment
    dataset = load(str(real_data / name / "interactions.parquet"), DataConfig(max_len=50))
    spec = DataSpec(dataset.num_users, dataset.num_items, 50)
    model = compiled(diqdiff.build(experiment.model, spec))
    index = np.random.default_rng(0).choice(len(dataset.train.start), 1024, replace=False)
    example = cut.sequences(dataset.train, jnp.asarray(index, jnp.int32), max_len=50)
    params, state = jax.jit(model.init)(jax.random.key(0), example)
    _, aux = model.loss(params, state, jax.random.key(1), example)
    total, contrast = ANCHORS[name]
    # sums of a random network: other weights move them by a few in a hundred
    np.testing.assert_allclose(aux.metrics["loss"], total, rtol=0.08)
    np.testing.assert_allclose(aux.metrics["contrast"], contrast, rtol=0.5)
