"""The loop: resume, early stopping, refusal, retention."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.batches import epochs
from jaxrec_diff.models.contract import Aux, Head, Model, Variables
from jaxrec_diff.training import checkpoint, loop, optim, programs, progress, step
from jaxrec_diff.training import state as training_state
from jaxrec_diff.training.config import TrainConfig

DATA = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def toy(explode_at=None):
    """Least squares towards the rows of DATA with noise keyed by the row."""

    def init(key, batch):
        return Variables({"w": jax.random.normal(key, (3,))}, state=jnp.int32(0))

    def loss(params, state, key, batch):
        eps = jax.random.normal(key, batch.shape)
        value = jnp.mean((params["w"] - batch - 0.1 * eps) ** 2)
        if explode_at is not None:
            value = jnp.where(state == explode_at, jnp.nan, value)
        return value, Aux(state + 1, {"loss": value})

    return Model(init, loss, lambda *_: jnp.zeros((1, 3)), lambda *_: Head(jnp.zeros((1, 3))))


def fit(folder, *, scores=None, stop_at=None, explode_at=None, events=None, **settings):
    config = TrainConfig(
        **({"batch_size": 8, "learning_rate": 0.05, "num_epochs": 6, "patience": 0} | settings)
    )
    left = iter(scores or [0.1, 0.5, 0.3, 0.2, 0.15, 0.12])
    events = [] if events is None else events
    return loop.fit(
        lambda axis: toy(explode_at),
        DATA,
        lambda data, index, row, key: data[index],
        len(DATA),
        config,
        lambda params, state: (next(left), {}),
        seed=1,
        folder=folder,
        mesh=layout.make_mesh(jax.devices()[:1]),
        on_progress=events.append,
        stop_asked=lambda: bool(stop_at and events and events[-1].step >= stop_at),
    )


def test_best_is_kept_although_it_is_old(tmp_path):
    done = fit(tmp_path)
    assert (done.best_step, done.steps, done.best_score) == (16, 48, 0.5)
    assert int(done.train.step) == 16
    kept = {int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()}
    assert kept == {16, 40, 48}


def test_events_know_the_best_of_all_restarts(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_DISPATCH_SECONDS", 0.0)  # one update each
    with pytest.raises(progress.Stopped):
        fit(tmp_path, scores=[0.1, 0.5, 0.3], stop_at=19)
    events = []
    done = fit(tmp_path, scores=[0.3, 0.7, 0.2, 0.1], events=events)
    kinds = [event.kind for event in events]
    assert kinds[:3] == ["resume", "compile", "train"] and kinds.count("compile") == 1
    assert events[0].step == events[1].step == 19 and events[0].epoch == pytest.approx(19 / 8)
    assert "loss" in events[0].metrics and events[0].best_score == 0.5
    found = [(e.epoch, e.best_score, e.bad_evals) for e in events if e.kind == "epoch"]
    assert found == [(3.0, 0.5, 1), (4.0, 0.7, 0), (5.0, 0.7, 1), (6.0, 0.7, 2)]
    assert done.best_score == 0.7


def test_speeds_leave_out_the_first_dispatch(tmp_path, monkeypatch):
    """A clock by which the first takes 100 s and every other a second, of two processors."""
    at, readings = [0.0], itertools.count()

    def tick():
        reading = next(readings)
        at[0] += (100.0 if reading == 1 else 1.0) if reading % 2 else 0.0
        return np.array([at[0], 2 * at[0]])

    monkeypatch.setattr(loop, "_clock", tick)
    monkeypatch.setattr(loop, "_DISPATCH_SECONDS", 0.0)  # one update each
    done = fit(tmp_path)
    assert (done.train_seconds, done.cpu_seconds, done.compile_seconds) == (47.0, 94.0, 100.0)
    assert done.examples_per_second == 8.0


def test_the_loss_of_an_evaluation_is_that_of_its_epoch(tmp_path):
    means = {}
    for every in (1, 3):
        events = []
        fit(tmp_path / str(every), eval_every=every, events=events, scores=[1, 2, 3, 4, 5, 6])
        means[every] = {e.epoch: e.metrics["loss"] for e in events if e.kind == "epoch"}
    assert list(means[3]) == [3.0, 6.0]
    assert all(means[1][epoch] == loss for epoch, loss in means[3].items())


def test_patience_counts_evaluations(tmp_path):
    assert fit(tmp_path, patience=2).steps == 32


def test_start_order_and_noise_have_streams_of_their_own(tmp_path):
    seen: dict[str, list] = {"start": [], "order": [], "noise": []}

    def record(stream, key):
        told = lambda data: seen[stream].append(tuple(data.tolist()))  # noqa: E731
        jax.debug.callback(told, jax.random.key_data(key))

    plain = toy()

    def init(key, batch):
        record("start", key)
        return plain.init(key, batch)

    def loss(params, state, key, batch):
        record("noise", key)
        return plain.loss(params, state, key, batch)

    def order_of(key):
        record("order", key)
        return epochs.permutation(key, 64, 8)

    loop.fit(
        lambda axis: plain._replace(init=init, loss=loss),
        DATA,
        lambda data, index, row, key: data[index],
        64,
        TrainConfig(batch_size=8, num_epochs=3, patience=0),
        lambda params, state: (0.5, {}),
        seed=1,
        folder=tmp_path,
        mesh=layout.make_mesh(jax.devices()[:1]),
        order_of=order_of,
    )
    jax.effects_barrier()
    (start,) = set(seen["start"])
    orders, noises = set(seen["order"]), set(seen["noise"])
    assert (len(orders), len(noises)) == (3, 24)
    # nor is one stream made of the keys that another is folded from
    root = jax.random.wrap_key_data(np.array(start, np.uint32))
    folded = {tuple(jax.random.key_data(jax.random.fold_in(root, i)).tolist()) for i in range(30)}
    assert not folded & orders and not folded & noises and not orders & noises
    assert start not in orders | noises


def test_unreadable_scores_are_set_aside_newest_first(tmp_path):
    def write(number, text):
        path = tmp_path / str(number) / "metrics" / "metrics"
        path.parent.mkdir(parents=True)
        path.write_text(text)

    good = '{"score": 0.5}'
    for number, text in (
        (8, "junk"), (16, good), (24, "junk"), (32, "{}"), (40, "[0.5]"), (48, '{"score": "0.5"}'),
        (56, '{"score": NaN}'), (64, '{"score": 0.5, "step": 32}'), (72, "[" * 100_000),
    ):  # fmt: skip
        write(number, text)
    (tmp_path / "80" / "metrics" / "metrics").mkdir(parents=True)
    damaged = (80, 72, 64, 56, 48, 40, 32, 24, 8)
    assert checkpoint.set_aside_unscored(tmp_path) == damaged
    kept = {"16", *(f"damaged-{step}" for step in damaged)}
    assert {folder.name for folder in tmp_path.iterdir()} == kept
    # those that were set aside before are no checkpoints, and may be damaged again
    assert checkpoint.set_aside_unscored(tmp_path) == ()
    write(24, "junk again")
    assert checkpoint.set_aside_unscored(tmp_path) == (24,)
    assert (tmp_path / "damaged-24" / "metrics" / "metrics").read_text() == "junk again"


def test_evaluations_come_after_every_few_epochs_and_at_the_end(tmp_path):
    events = []
    done = fit(tmp_path, scores=[0.1, 0.2], eval_every=4, events=events)
    found = [(event.step, event.epoch) for event in events if event.kind == "epoch"]
    assert found == [(32, 4.0), (48, 6.0)] and done.best_step == 48


@pytest.mark.parametrize("stop_at", [3, 11, 16])
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path, stop_at):
    whole = fit(tmp_path / "a", scores=[1, 2, 3, 4, 5, 6])
    with pytest.raises(progress.Stopped):
        fit(tmp_path / "b", scores=[1, 2, 3, 4, 5, 6], stop_at=stop_at)
    events = []
    seen = stop_at // 8
    again = fit(tmp_path / "b", scores=[1, 2, 3, 4, 5, 6][seen:], events=events)
    assert events[0].kind == "resume" and stop_at <= events[0].step <= 16
    assert again.best_step == whole.best_step == 48
    for a, b in zip(jax.tree.leaves(whole.train), jax.tree.leaves(again.train), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("part", ["", "state", "metrics"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, part):
    fit(tmp_path, scores=[1, 2, 3, 4, 5, 6])
    for path in (tmp_path / "48" / part).rglob("*"):
        if path.is_file():
            path.write_bytes(b"junk")
    events = []
    again = fit(tmp_path, scores=[6], events=events)
    assert [(e.kind, e.step) for e in events[:2]] == [("damaged", 48), ("resume", 40)]
    assert again.steps == 48
    assert (tmp_path / "damaged-48").is_dir()


def test_a_loss_that_is_no_number_names_its_step(tmp_path):
    with pytest.raises(progress.NonFiniteLoss, match="step 14.*step 8") as caught:
        fit(tmp_path, explode_at=13)
    assert caught.value.step == 14


def test_batches_that_cannot_be_made_are_refused(tmp_path):
    with pytest.raises(ValueError, match="batch-size|batch_size=65"):
        fit(tmp_path, batch_size=65)
    config, mesh = TrainConfig(batch_size=12), layout.make_mesh(jax.devices()[:8])
    with pytest.raises(ValueError, match="8 does"):
        programs.check(config, 64, mesh)
    assert not list(tmp_path.iterdir())


def test_permutations_show_every_example_once():
    got = epochs.permutation(jax.random.key(0), 13, 4)
    assert got.shape == (3, 4) and len(set(np.ravel(got).tolist())) == 12


def test_whole_permutations_leave_nothing_out():
    got = np.asarray(epochs.whole(jax.random.key(0), 13, 4))
    assert got.shape == (4, 4) and sorted(got.ravel().tolist()) == [-1] * 3 + list(range(13))
    assert (got[:3] >= 0).all()  # only the last batch is short
    assert epochs.whole(jax.random.key(0), 12, 4).shape == (3, 4)


@pytest.mark.parametrize(("sampler", "steps"), [("perm", 5), ("whole", 6)])
def test_an_epoch_has_as_many_updates_as_batches(tmp_path, sampler, steps):
    done = fit(tmp_path, batch_size=12, epoch_sampler=sampler, num_epochs=2)
    assert done.steps == 2 * steps


@pytest.mark.parametrize("num_examples", [9, 1000])
def test_iid_batches_hold_distinct_examples_uniformly(num_examples):
    got = np.asarray(epochs.iid(jax.random.key(0), num_examples, 4))
    assert all(len(set(row.tolist())) == 4 for row in got)
    many = jax.vmap(lambda k: epochs.distinct(k, num_examples, 4))(
        jax.random.split(jax.random.key(1), 4000)
    )
    counts = np.bincount(np.ravel(many), minlength=num_examples)
    expected = 16_000 / num_examples
    assert abs(counts - expected).max() < 6 * np.sqrt(expected)
    # the first place alone is uniform too: no bias from dropping repeats
    halves = np.mean(np.asarray(many)[:, 0] < num_examples / 2)
    assert abs(halves - np.ceil(num_examples / 2) / num_examples) < 0.04


def test_counters_survive_json():
    meta = json.loads(
        json.dumps(loop._Counters(sums={"loss": 1.5})._replace(best_score=0.5)._asdict())
    )
    assert loop._Counters(**meta).sums == {"loss": 1.5}


def test_where_a_dispatch_ends_leaves_no_trace_in_the_log(tmp_path, monkeypatch):
    logs = []
    for seconds in (0.0, 100.0):  # one update a dispatch, and as many as there are
        monkeypatch.setattr(loop, "_DISPATCH_SECONDS", seconds)
        events = []
        fit(tmp_path / str(seconds), events=events, batch_size=2)
        assert (sum(e.kind == "train" for e in events) == 6 * 32) == (seconds == 0.0)
        logs.append([e.metrics["loss"] for e in events if e.kind == "epoch"])
    assert logs[0] == logs[1]


def test_every_update_draws_its_own_noise():
    config = TrainConfig(optimizer="sgd", learning_rate=1e-9)
    optimizer = optim.make(config, 2)
    model = toy()
    train = training_state.create(model.init(jax.random.key(0), DATA[:8]), optimizer)
    update = jax.jit(
        lambda train: step.update(model, optimizer, train, jax.random.key(1), DATA[:8])
    )
    losses = []
    for _ in range(2):
        train, found = update(train)
        losses.append(float(found["loss"]))
    assert abs(losses[0] - losses[1]) > 1e-4


def test_a_state_begins_with_the_rows_that_a_model_is_given():
    rows = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    drawn = jnp.arange(24.0).reshape(8, 3)
    model = toy()._replace(
        init=lambda key, batch: Variables({"items": drawn}, ()),
        given={"items": rows},
        frozen=("items",),
    )
    config = TrainConfig(batch_size=8, num_epochs=1, ema_decay=0.5)
    made = programs.make(
        lambda axis: model, DATA, lambda data, index, row, key: data[index], len(DATA), config, 1,
        layout.make_mesh(jax.devices()[:1]), "jit", None, None,
    )  # fmt: skip
    train = made.initial()
    want = np.concatenate([drawn[:1], rows, drawn[6:]])
    for params in (train.params, training_state.averaged(train)):
        np.testing.assert_array_equal(params["items"], want)
    # A compiler that is handed them as constants takes ten times their size.
    initial = programs.initial_of(
        lambda axis: model, lambda data, index, row, key: data[index],
        optim.make(config, 8, frozen=model.frozen), config, jax.random.key(1),
    )  # fmt: skip
    consts = jax.make_jaxpr(initial)(DATA, model.given).consts
    assert not any(np.shape(each) == rows.shape for each in consts)
