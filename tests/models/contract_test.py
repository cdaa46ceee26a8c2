"""One exam for every model that a preset names."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrec_diff import config as settings
from jaxrec_diff import layout
from jaxrec_diff.batches.types import Sequences
from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.diffusion import process
from jaxrec_diff.diffusion.config import SamplerConfig
from jaxrec_diff.diffusion.row_process import ProcessConfig
from jaxrec_diff.diffusion.straight import PathConfig
from jaxrec_diff.evaluation import rank
from jaxrec_diff.models import contract, given_rows, registry
from jaxrec_diff.models.adrec import ADRecConfig
from jaxrec_diff.models.bayesrec import BayesRecConfig
from jaxrec_diff.models.bert4rec import Bert4RecConfig
from jaxrec_diff.models.contract import DataSpec, GivenRows, Head
from jaxrec_diff.models.ddrm import DDRMConfig
from jaxrec_diff.models.diffrec import DiffRecConfig
from jaxrec_diff.models.diffrec2 import DiffRec2Config
from jaxrec_diff.models.diffuasr import DiffuASRConfig
from jaxrec_diff.models.diffurec import DiffuRecConfig
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.models.diqdiff import DiQDiffConfig
from jaxrec_diff.models.dreamrec import DreamRecConfig
from jaxrec_diff.models.flow import FlowConfig
from jaxrec_diff.models.fmrec import FMRecConfig
from jaxrec_diff.models.giffcf import GiffCFConfig
from jaxrec_diff.models.ldiffrec import LDiffRecConfig
from jaxrec_diff.models.lightgcn import LightGCNConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.models.multvae import MultVAEConfig
from jaxrec_diff.models.preferdiff import PreferDiffConfig
from jaxrec_diff.models.readers import Reader
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training import optim, parallel, state, step
from jaxrec_diff.training.config import TrainConfig
from tests.models.compiled import compiled

ITEMS, LENGTH, ROWS = 20, 5, 16
DATA = DataConfig(
    max_len=LENGTH,
    prefix_len=2,
    synthetic=SyntheticConfig(
        num_users=120, num_items=ITEMS, num_interests=4, min_length=4, max_length=9
    ),
)
DATASET = load("synthetic", DATA)
_RNG = np.random.default_rng(11)
SPEC = DataSpec(
    num_users=DATASET.num_users,
    num_items=ITEMS,
    max_len=LENGTH,
    item_counts=np.arange(ITEMS) + 1,
    user_items=DATASET.user_items,
    exports={
        "users": _RNG.normal(size=(DATASET.num_users, 8)).astype(np.float32),
        "items": _RNG.normal(size=(ITEMS, 8)).astype(np.float32),
    },
    prefix_len=2,
    # the item that follows is the mean of those before it, as far as anybody knows
    reader=Reader({"gain": np.float32(2.0)}, lambda params, x: params["gain"] * x.mean(axis=1)),
)

# Small settings of every model; a preset of a model without a row here fails the first test.
SMALL = {
    "dreamrec": DreamRecConfig(width=8, num_steps=6, beta_stop=0.3),
    "dreamrec-mlp2-frozen": DreamRecConfig(
        width=8, num_steps=6, denoiser="mlp2", item_embedding="frozen", guidance="two_calls"
    ),
    "dreamrec-closed-form": DreamRecConfig(
        width=8, num_steps=6, sampler=SamplerConfig(kind="closed_form")
    ),
    "preferdiff": PreferDiffConfig(
        width=8,
        num_steps=6,
        beta_stop=0.3,
        sampler=SamplerConfig(kind="ddim", steps=3, spacing="strided"),
    ),
    "preferdiff-official": PreferDiffConfig(
        width=8,
        num_steps=6,
        loss="l2",
        preference_over="example",
        network_t="official",
        start="noise",
        reverse="walk",
        guidance="two_calls",
        score="cos",
        sampler=SamplerConfig(kind="ddim", steps=3, spacing="strided"),
    ),
    "preferdiff-closed-form": PreferDiffConfig(
        width=8, num_steps=6, preference=0.0, sampler=SamplerConfig(kind="closed_form")
    ),
    "dimerec": DimeRecConfig(width=8, num_interests=2, num_steps=6, num_negatives=12),
    "dimerec-in-batch": DimeRecConfig(width=8, num_interests=2, num_steps=6, negatives="in_batch"),
    "dimerec-tuned": DimeRecConfig(
        width=8, num_interests=2, num_steps=6, negatives="full", forward="vp_norm", temperature=0.1
    ),
    "mf": MFConfig(width=8),
    "lightgcn": LightGCNConfig(width=8, layers=2),
    "multvae": MultVAEConfig(hidden=8, width=4, anneal_steps=3),
    "multdae": MultVAEConfig(hidden=8, width=4, code="dae"),
    "sgl": LightGCNConfig(width=8, layers=1, readout="normalized_sum", contrast_weight=0.1),
    "diffrec2": DiffRec2Config(
        width=8,
        num_blocks=1,
        num_heads=2,
        schedule="linear",
        num_steps=6,
        beta_stop=0.3,
        num_seeds=2,
        ce_weight=0.5,
    ),
    "diffrec2-blind-mixture": DiffRec2Config(
        width=8,
        num_blocks=2,
        num_heads=2,
        schedule="linear",
        num_steps=4,
        beta_stop=0.3,
        num_seeds=2,
        history_blind=True,
        seed_average="prob",
        step_sampler="uniform",
        out_norm=False,
        jitter_history=True,
        tie_head=True,
        dropout_rate=0.0,
    ),
    "diffrec": DiffRecConfig(dims=(6, 12)),
    "diffrec-noisy": DiffRecConfig(
        dims=(8,),
        process=ProcessConfig(noise_scale=1.0, noise_min=0.1, noise_max=0.5, fix_first=False),
        noise_steps=3,
        sampler=SamplerConfig(kind="ddpm"),
    ),
    "diffrec-eps": DiffRecConfig(
        dims=(8,), normalize=True, process=ProcessConfig(predict="eps", draw="uniform")
    ),
    "giffcf": GiffCFConfig(width=8),
    "giffcf-noisy-ideal": GiffCFConfig(
        width=8,
        num_steps=4,
        noise_decay=1.0,
        noise_scale=0.1,
        ideal_weight=0.2,
        ideal_cutoff=3,
        history_norm="none",
        state_scale="length",
        sampler=SamplerConfig(kind="mean", steps=2),
    ),
    "ldiffrec": LDiffRecConfig(
        encoder_dims=(6,),
        denoiser_dims=(8,),
        process=ProcessConfig(noise_scale=1.0, noise_min=0.1, noise_max=0.5, fix_first=False),
    ),
    "ldiffrec-clustered": LDiffRecConfig(
        clusters=3,
        encoder_dims=(6, 12),
        denoiser_dims=(8,),
        decoder="clustered",
        process=ProcessConfig(predict="eps", noise_scale=0.5),
        noise_steps=2,
        sampler=SamplerConfig(kind="ddpm"),
    ),
    "ddrm": DDRMConfig(dims=(4, 8), num_steps=6, reweight="softmax", gamma=0.5, extra_steps=2),
    "diffurec": DiffuRecConfig(width=8, num_blocks=1, num_steps=6, schedule="cosine"),
    "diffurec-key": DiffuRecConfig(
        width=8,
        num_blocks=1,
        num_steps=6,
        schedule="cosine",
        mask="key",
        pad_class=False,
        positions=True,
        lambda_draw="per_step",
        step_sampler="lossaware",
    ),
    "flow": FlowConfig(width=8, num_blocks=1, num_steps=8),
    "flow-consistent": FlowConfig(
        width=8,
        num_blocks=1,
        num_steps=8,
        path=PathConfig(time_law="logit_normal", shift=3.0),
        target="learned",
        consistency=1.0,
        consistency_delta=0.0,
        consistency_ramp=1,
        teacher="ema",
        sampler=SamplerConfig(kind="heun", steps=3),
    ),
    "fmrec": FMRecConfig(width=8, num_blocks=1, num_steps=6),
    "fmrec-decoder": FMRecConfig(
        width=8,
        num_blocks=2,
        num_steps=6,
        mask="key",
        pad_class=False,
        path=PathConfig(time_law="cosmap"),
        reconstruct="released",
        reconstruct_last=1,
        sampler=SamplerConfig(kind="dpmpp", steps=3),
    ),
    "sasrec": SASRecConfig(width=8, num_blocks=1),
    "sasrec-bce": SASRecConfig(width=8, num_blocks=1, loss="bce", mask="none", num_heads=2),
    "sasrec-ligr": SASRecConfig(
        width=8,
        num_blocks=2,
        block="ligr",
        ff_multiplier=2,
        scale_items=False,
        positions="inverse",
        windows="last",
    ),
    "sasrec-gbce": SASRecConfig(
        width=8, num_blocks=1, loss="gbce", share="position", num_negatives=4
    ),
    "sasrec-sampled": SASRecConfig(
        width=8, num_blocks=1, loss="sampled", negatives="popularity", num_negatives=12
    ),
    "bayesrec": BayesRecConfig(width=8, num_blocks=1, num_steps=6),
    "bayesrec-walks": BayesRecConfig(
        width=8,
        num_blocks=1,
        hidden=16,
        num_steps=6,
        target="stopped",
        drop_rate=0.5,
        guidance_weight=0.5,
        estimate="mean",
        start="noise",
        num_draws=2,
        windows="last",
        sampler=SamplerConfig(kind="ddpm", steps=3),
    ),
    "diqdiff": DiQDiffConfig(
        width=8,
        num_blocks=1,
        num_heads=2,
        num_codes=3,
        schedule="cosine",
        num_steps=4,
        dropout_rate=0.0,
    ),
    "diqdiff-paper": DiQDiffConfig(
        width=8,
        num_blocks=1,
        num_heads=2,
        num_codes=3,
        schedule="cosine",
        num_steps=4,
        svq="paper",
        recon="mse",
        mask="key",
        codebook_decay=0.5,
        dropout_rate=0.0,
    ),
    "adrec": ADRecConfig(
        width=8,
        encoder_blocks=1,
        denoiser_blocks=1,
        num_heads=2,
        mask="key",
        pad_class=False,
        schedule="cosine",
        num_steps=6,
        windows="all",
        sampler=SamplerConfig(noise="std_large", spacing="leading", steps=3),
    ),
    "adrec-official": ADRecConfig(
        width=8,
        encoder_blocks=1,
        denoiser_blocks=1,
        num_heads=2,
        schedule="cosine",
        num_steps=6,
        freeze="released",
        guidance_weight=0.5,
        x0_scale="unit",
        lambda_scale=0.5,
        pcgrad=True,
        independent=False,
        sampler=SamplerConfig(noise="std_large"),
    ),
    "bert4rec": Bert4RecConfig(width=8, num_blocks=1, num_heads=2),
    "bert4rec-full": Bert4RecConfig(width=8, num_blocks=1, num_heads=2, loss="full"),
    "diffuasr": DiffuASRConfig(
        denoiser="mlp", mlp_hidden=16, num_steps=50, sampler=SamplerConfig(kind="ddim", steps=3)
    ),
    "diffuasr-classifier": DiffuASRConfig(
        denoiser="mlp",
        mlp_hidden=16,
        num_steps=50,
        guidance="classifier",
        sampler=SamplerConfig(kind="dpmpp", steps=3),
    ),
    "diffuasr-official": DiffuASRConfig(
        denoiser="mlp",
        mlp_hidden=16,
        num_steps=50,
        items="trained",
        width=8,
        pool="sum",
        compat="official",
        sampler=SamplerConfig(kind="ddim", steps=3, spacing="leading"),
    ),
}
KEY = jax.random.key(7)
# All tests of a model follow each other, while its compiled programs are kept.
EVERY = pytest.mark.parametrize("name", SMALL, scope="module")
# What a setting does not touch is asked of one model of each system.
_FIRST = {type(SMALL[name]): name for name in reversed(SMALL)}.values()
SYSTEMS = pytest.mark.parametrize(
    "name",
    [n if n in _FIRST else pytest.param(n, marks=pytest.mark.slow) for n in SMALL],
    scope="module",
)
# Op by op a loss is a hundred programs: a model of each of these, which take the fewest.
_FEW = ("mf", "ddrm", "flow", "bert4rec", "sasrec")
EAGER = pytest.mark.parametrize(
    "name",
    [n if n in _FEW else pytest.param(n, marks=pytest.mark.slow) for n in SMALL],
    scope="module",
)


def build(name, **kwargs):
    return registry.system(SMALL[name]).build(SMALL[name], SPEC, **kwargs)


@functools.cache
def _batcher(kind):
    batcher = kind.batcher(kind.view(DATASET, DATA), DATA)
    return batcher._replace(example=jax.jit(batcher.example), query=jax.jit(batcher.query))


def batcher_of(name):
    return _batcher(registry.input_of(SMALL[name]))


@functools.cache
def example(name, rows=ROWS, seed=0):
    batcher = batcher_of(name)
    index = np.random.default_rng(seed).choice(batcher.num_examples, rows, replace=False)
    row = jnp.arange(rows, dtype=jnp.int32)
    return batcher.example(batcher.train, jnp.asarray(index, jnp.int32), row, jax.random.key(seed))


@functools.cache
def query(name, rows=ROWS):
    batcher = batcher_of(name)
    return batcher.query(batcher.splits["test"], jnp.arange(rows, dtype=jnp.int32))


@functools.cache
def compiled_of(name):
    """A model whose functions are compiled once for all tests, with its variables."""
    model = compiled(build(name))
    return model, model.init(jax.random.key(0), example(name))


@functools.cache
def graded(name):
    """Loss and gradient of a model, compiled once for all tests, and the shapes it was traced for.

    params, state, key, example -> ((value, aux), gradient)
    """
    model, traces = build(name), []

    def loss(params, state, key, batch):
        traces.append(batch.weight.shape)
        return model.loss(params, state, key, batch)

    return jax.jit(jax.value_and_grad(loss, has_aux=True)), traces


@functools.partial(jax.jit, static_argnames=("first", "items", "k"))
def _top(points, table, bias, *, first, items, k):
    return rank.top(rank.Drawn(points, Head(table, bias, first, items)), k=k)


def top(points, head, k):
    return _top(points, *head[:2], first=head.first, items=head.items, k=k)


def close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_every_model_takes_the_exam():
    presets = [settings.preset(name, "synthetic") for name in settings.preset_names()]
    models = {type(chosen.experiment.model) for chosen in presets}
    assert {type(config) for config in SMALL.values()} == models


@EVERY
def test_loss_is_finite_reaches_every_leaf_and_keeps_the_state(name):
    grad, _ = graded(name)
    params, before = compiled_of(name)[1]
    (value, aux), grads = grad(params, before, KEY, example(name))
    assert np.isfinite(value)
    assert aux.metrics["loss"] == value
    assert all(np.shape(v) == () for v in aux.metrics.values())
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), optim.path_of(path)
        # A key's bias adds the same number to all scores of a query; a softmax does not see it.
        if not optim.path_of(path).endswith("key/bias"):
            assert np.abs(leaf).max() > 0, optim.path_of(path)
    shapes = jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), (before, aux.state))
    assert shapes[0] == shapes[1]


@EVERY
def test_padding_rows_change_nothing(name):
    (grad, _), (params, extra), batch = graded(name), compiled_of(name)[1], example(name)
    real = ROWS - 4
    padded = batch._replace(weight=batch.weight.at[real:].set(0.0))
    # the same rows with others as their padding
    filled = jax.tree.map(lambda x: jnp.concatenate([x[:real], x[:4]]), batch)
    filled = filled._replace(weight=padded.weight, row_id=batch.row_id)
    (value, _), of_value = grad(params, extra, KEY, padded)
    (same, _), of_same = grad(params, extra, KEY, filled)
    close((value, of_value), (same, of_same), rtol=1e-4, atol=1e-6)
    # and without any
    alone = compiled_of(name)[0].loss(params, extra, KEY, jax.tree.map(lambda x: x[:real], batch))[
        0
    ]
    np.testing.assert_allclose(value, alone, rtol=1e-4, atol=1e-6)


@SYSTEMS
def test_another_batch_is_no_other_program(name):
    (grad, traces), variables = graded(name), compiled_of(name)[1]
    grad(*variables, KEY, example(name, seed=0))
    before = traces.count((ROWS,))  # twice, if its program was let go for memory
    grad(*variables, KEY, example(name, seed=5))
    assert traces.count((ROWS,)) == before


@EAGER
def test_jit_equals_eager(name):
    variables, batch = compiled_of(name)[1], example(name)
    (value, _), _ = graded(name)[0](*variables, KEY, batch)
    eager = build(name).loss(*variables, KEY, batch)[0]
    np.testing.assert_allclose(value, eager, rtol=1e-5)


@EVERY
def test_points_do_not_depend_on_the_other_rows(name):
    (model, (params, extra)), asked = compiled_of(name), query(name)
    whole = model.sample(params, extra, KEY, asked)
    part = jax.tree.map(lambda x: x[3:7], asked)
    np.testing.assert_allclose(
        model.sample(params, extra, KEY, part), whole[3:7], rtol=1e-4, atol=1e-5
    )
    head = model.head(params, extra)
    assert rank.num_items(head) == ITEMS
    assert (
        whole.shape[-1] >= ITEMS if head.table is None else whole.shape[-1] == head.table.shape[1]
    )
    found = top(whole, head, k=5)
    assert np.isfinite(found.scores).all()


@EVERY
def test_points_are_the_end_of_the_chain_that_the_model_names(name):
    (model, variables), asked = compiled_of(name), query(name)
    config = SMALL[name]
    if model.chain is None:
        # no sampler of its own, or one call from many seeds
        assert not hasattr(config, "sampler") or config.inference == "efficient"
        return
    chain = model.chain
    path = jax.jit(lambda key: process.trajectory(chain(*variables, key, asked)))(KEY)
    steps = jax.eval_shape(lambda: chain(*variables, KEY, asked).steps)
    assert path.shape[:2] == (len(steps.t) + 1, ROWS)
    if config.sampler.kind == "closed_form":
        return  # drawn from the law of the end
    points = model.sample(*variables, KEY, asked)
    np.testing.assert_allclose(model.finish(*variables, path[-1]), points, rtol=1e-4, atol=1e-5)


@EVERY
def test_a_chain_may_be_shown_where_a_perfect_one_would_stand(name):
    (model, variables), asked = compiled_of(name), query(name)
    walked = registry.system(SMALL[name]).walks(SMALL[name])
    model = registry.system(walked).build(walked, SPEC)
    assert (model.noised is None) == (model.chain is None)
    if model.chain is None:
        return
    answers = 1 + (jnp.arange(ROWS)[:, None] + jnp.arange(2)) % ITEMS
    shown = jax.jit(model.noised)
    first = shown(*variables, KEY, asked, answers, jnp.int32(0))
    chain = model.chain(*variables, KEY, asked)
    start, t = chain.start, chain.steps.t
    assert (first.shape, first.dtype) == (start.shape, start.dtype)
    # other answers are another x_0 under the same noise, and another step is other noise
    other = shown(*variables, KEY, asked, answers % ITEMS + 1, jnp.int32(0))
    late = shown(*variables, KEY, asked, answers, t[0])
    for each in (other, late):
        apart = np.abs(np.asarray(first - each)).reshape(ROWS, -1).max(axis=1)
        assert (apart > 0).all()
    part = jax.tree.map(lambda x: x[3:7], asked)
    alone = shown(*variables, KEY, part, answers[3:7], jnp.int32(0))
    np.testing.assert_allclose(alone, first[3:7], rtol=1e-4, atol=1e-5)


@EVERY
def test_a_deterministic_model_reads_no_key_and_no_row_and_another_does(name):
    (model, variables), asked = compiled_of(name), query(name)
    points = model.sample(*variables, KEY, asked)
    moved = asked._replace(row_id=asked.row_id + ROWS)
    same = [
        np.array_equal(points, model.sample(*variables, key, each))
        for key, each in ((jax.random.key(8), asked), (KEY, moved))
    ]
    assert same == [model.deterministic] * 2
    if model.deterministic:
        for variant in model.variants.values():
            np.testing.assert_array_equal(variant(*variables, asked), variant(*variables, moved))


@SYSTEMS
def test_a_model_that_both_protocols_share_is_one_program(name):
    variables, asked = compiled_of(name)[1], query(name)

    def program(protocol):
        model = build(name, protocol=protocol)

        def everything(params, state, key, query):
            state = model.precompute(params, state)
            variants = {each: of(params, state, query) for each, of in model.variants.items()}
            return model.sample(params, state, key, query), model.head(params, state), variants

        made = jax.make_jaxpr(everything)(*variables, KEY, asked)
        return str(made.jaxpr), jax.device_get(made.consts), model.deterministic

    honest, official = program("honest"), program("official")
    alike = honest[::2] == official[::2] and all(
        np.array_equal(a, b) for a, b in zip(honest[1], official[1], strict=True)
    )
    assert alike or registry.system(SMALL[name]).official_differs
    if name in ("dreamrec", "diffurec"):  # whose padding row competes
        assert not alike


@EVERY
def test_a_precomputed_state_says_the_same(name):
    (model, (params, extra)), asked = compiled_of(name), query(name)
    ready = jax.jit(model.precompute)(params, extra)
    points = [model.sample(params, s, KEY, asked) for s in (extra, ready)]
    np.testing.assert_allclose(*points, rtol=1e-6, atol=1e-7)
    close(*(model.head(params, s) for s in (extra, ready)), rtol=1e-6, atol=1e-7)
    for variant in model.variants.values():
        np.testing.assert_allclose(*(variant(params, s, asked) for s in (extra, ready)), rtol=1e-6)


@EVERY
def test_places_behind_the_history_and_the_padding_row_do_not_matter(name):
    (grad, _), (params, extra), batch = graded(name), compiled_of(name)[1], example(name)
    if not isinstance(batch, Sequences):
        pytest.skip("reads no sequences")
    if getattr(SMALL[name], "pad_class", False):
        pytest.skip("padding is a class of its softmax, as released")
    if isinstance(SMALL[name], DiQDiffConfig):
        pytest.skip("padding is part of its codes")
    other = dict(params) | {"items": params["items"].at[0].set(3.0)}
    values = [grad(p, extra, KEY, batch)[0][0] for p in (params, other)]
    np.testing.assert_allclose(*values, rtol=1e-6)


# One of a system whose table of items takes vectors.
TABLES = list({type(SMALL[name]): name for name in reversed(SMALL)
               if registry.system(SMALL[name]).item_table is not None}.values())  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_vectors_of_items_are_rows_of_its_table(name):
    model, variables = compiled_of(name)
    before = variables.params["items"]
    rows = np.random.default_rng(5).normal(size=(ITEMS, before.shape[1])).astype(np.float32)
    given = given_rows.start_from(model, GivenRows(rows, frozen=True))
    after = contract.begun(variables.params, given.given)
    np.testing.assert_array_equal(after["items"][1 : ITEMS + 1], rows)
    np.testing.assert_array_equal(after["items"][ITEMS + 1 :], before[ITEMS + 1 :])
    others = [{k: v for k, v in p.items() if k != "items"} for p in (after, variables.params)]
    close(*others)
    assert given.frozen == ("items",) and given.compact is None
    # what vectors are scaled to is the deviation of the rows that they replace
    said = registry.system(SMALL[name]).item_table.deviation(SMALL[name])
    assert 0.8 < np.std(before[1 : ITEMS + 1]) / said < 1.25


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_grows_takes_items_that_training_never_met(name):
    """A new item with the vector of a known one is that item, in lists and in histories."""
    system, twin = registry.system(SMALL[name]), 3
    if not system.item_table.grows:
        pytest.skip("has further rows or arrays of items")
    (model, (params, extra)), asked = compiled_of(name), query(name)
    larger = compiled(system.build(SMALL[name], SPEC._replace(num_items=ITEMS + 2, exports={})))
    rows = np.stack([params["items"][twin], np.zeros_like(params["items"][twin])])
    more = given_rows.grown(params, ITEMS, rows)
    points = model.sample(params, extra, KEY, asked)
    np.testing.assert_array_equal(points, larger.sample(more, extra, KEY, asked))
    other = asked._replace(seq=jnp.where(asked.seq == twin, ITEMS + 1, asked.seq))
    assert (other.seq != asked.seq).any()
    np.testing.assert_array_equal(points, larger.sample(more, extra, KEY, other))
    head = larger.head(more, extra)
    assert rank.num_items(head) == ITEMS + 2
    scores = points @ rank.item_rows(head).T
    before = points @ rank.item_rows(model.head(params, extra)).T
    np.testing.assert_allclose(scores[:, :ITEMS], before, rtol=1e-6)
    np.testing.assert_allclose(scores[:, ITEMS], before[:, twin - 1], rtol=1e-6)


def _updates(name, mode, devices, count=6, lengths=False):
    mesh = layout.make_mesh(jax.devices()[:devices])
    model = build(name, axis_name=parallel.AXIS if mode == "pmap" else None)
    # not Adam: it turns rounding in gradients that are zero in theory into whole steps
    optimizer = optim.make(TrainConfig(optimizer="sgd", learning_rate=0.1), 100)
    batcher = batcher_of(name)
    order = np.arange(96, dtype=np.int32).reshape(6, 16)
    if lengths:
        batcher = registry.input_of(SMALL[name]).by_length(DATASET, DATA, 16, devices)
        order = jax.jit(batcher.order)(jax.random.key(5))

    def update(train, key, batch):
        axis = parallel.AXIS if mode == "pmap" else None
        return step.update(model, optimizer, train, key, batch, axis_name=axis)

    wrap = {"jit": parallel.jit_updates, "pmap": parallel.pmap_updates}[mode]
    updates = wrap(update, batcher.example, mesh)
    train = state.create(jax.tree.map(jnp.copy, compiled_of(name)[1]), optimizer)
    placed = [updates.place(x) for x in (train, batcher.train, jax.random.key(2), order)]
    train, reports = updates.run(*placed, np.int32(0), np.int32(count))
    assert int(reports.bad_step) == -1
    train = updates.fetch(train)
    return train.params, train.state, float(reports.metrics["loss"].sum())


_SLOW = (
    "adrec",
    "adrec-official",
    "flow-consistent",
    "fmrec-decoder",
    "bayesrec-walks",
    "giffcf",
    "preferdiff-official",
    "sgl",
    "ddrm",
    "diffurec-key",
    "diffrec2",
    "diqdiff",
    "diqdiff-paper",
)


@pytest.mark.parametrize(
    "name",
    [
        "dreamrec",
        "dimerec",
        "diffrec-noisy",
        "ldiffrec",
        *(pytest.param(n, marks=pytest.mark.slow) for n in _SLOW),
    ],
)
def test_one_two_and_eight_devices_and_pmap_agree(name):
    reference = _updates(name, "jit", 1)
    modes = [("jit", 8), ("pmap", 8)]
    if name == "dimerec":  # what other numbers of devices change is no matter of the model
        modes += [("jit", 2), ("pmap", 1)]
    for mode, devices in modes:
        close(_updates(name, mode, devices), reference, rtol=2e-3, atol=2e-4)


def test_batches_of_several_lengths_agree_on_any_number_of_devices():
    reference = _updates("sasrec", "jit", 1, lengths=True)
    for mode, devices in (("jit", 2), ("pmap", 8)):
        found = _updates("sasrec", mode, devices, lengths=True)
        close(found, reference, rtol=2e-3, atol=2e-4)


def test_sharded_points_are_the_points_of_one_device():
    (model, (params, extra)), asked = compiled_of("dimerec"), query("dimerec")
    mesh = layout.make_mesh()
    sharded = jax.device_put(asked, NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(
        model.sample(params, extra, KEY, sharded),
        model.sample(params, extra, KEY, asked),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        DreamRecConfig(
            width=16,
            num_steps=20,
            beta_stop=0.3,
            item_embedding="frozen",
            guidance_weight=0.0,
            sampler=SamplerConfig(kind="mean"),
        ),
        DimeRecConfig(
            width=16, num_interests=2, num_steps=10, negatives="full", forward="vp_norm",
            temperature=0.1, init_scale=0.3,
        ),
        MFConfig(width=16),
        LightGCNConfig(width=16),
    ],
    ids=["dreamrec", "dimerec", "mf", "lightgcn"],
)  # fmt: skip
def test_two_tastes_are_learned(config, tmp_path):
    # Users like either the odd or the even items: a list of 5 is all of one taste or it is not.
    rng = np.random.default_rng(0)
    users, length = 400, 8
    taste = rng.integers(0, 2, users)
    drawn = (
        taste[:, None] + 2 * rng.permuted(np.tile(np.arange(10), (users, 1)), axis=1)[:, :length]
    )
    np.savez(
        tmp_path / "tastes.npz",
        user_id=np.repeat(np.arange(users), length),
        item_id=drawn.reshape(-1),
    )
    data = DataConfig(max_len=LENGTH)
    dataset = load(str(tmp_path / "tastes.npz"), data)
    system = registry.system(config)
    batcher = registry.input_of(config).batcher(dataset, data)
    spec = SPEC._replace(num_users=users, user_items=dataset.user_items)
    model = compiled(system.build(config, spec))
    optimizer = optim.make(TrainConfig(learning_rate=3e-3), 1)
    rows = jnp.arange(64, dtype=jnp.int32)

    @jax.jit
    def update(train, key):
        k_index, k_cut = jax.random.split(key)
        index = jax.random.randint(k_index, (64,), 0, batcher.num_examples)
        batch = batcher.example(batcher.train, index, rows, k_cut)
        return step.update(model, optimizer, train, KEY, batch)[0]

    first = batcher.example(batcher.train, rows, rows, KEY)
    train = state.create(model.init(jax.random.key(0), first), optimizer)
    for i in range(600):
        train = update(train, jax.random.fold_in(KEY, i))
    asked = batcher.query(batcher.splits["test"], jnp.arange(200, dtype=jnp.int32))
    points = model.sample(train.params, train.state, KEY, asked)
    head = model.head(train.params, train.state)
    found = top(points, head, k=5)
    same = (found.items - 1) % 2 == taste[dataset.test_users[:200], None]
    assert float(same.mean()) > 0.9
