"""Training on chunks that are cut on the host is training on resident data, to the last bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxrec_diff import layout
from jaxrec_diff.batches.batcher import Stream
from jaxrec_diff.data.config import DataConfig, SyntheticConfig
from jaxrec_diff.data.load import load
from jaxrec_diff.models import registry
from jaxrec_diff.models.contract import DataSpec
from jaxrec_diff.models.dimerec import DimeRecConfig
from jaxrec_diff.models.mf import MFConfig
from jaxrec_diff.models.sasrec import SASRecConfig
from jaxrec_diff.training import chunks, loop, parallel
from jaxrec_diff.training.config import TrainConfig
from jaxrec_diff.training.progress import Stopped

DATA = DataConfig(
    max_len=5,
    synthetic=SyntheticConfig(num_users=60, num_items=30, num_interests=4, max_length=9),
)
MODELS = {
    "dimerec": DimeRecConfig(width=8, num_interests=2, num_steps=4, num_negatives=16),
    "mf": MFConfig(width=8),
    "sasrec": SASRecConfig(width=8, num_blocks=1),  # which reads histories in a few lengths
}


def batcher_of(name, devices):
    kind, dataset = registry.input_of(MODELS[name]), load("synthetic", DATA)
    if registry.system(MODELS[name]).accepts_buckets(MODELS[name]):
        return kind.by_length(dataset, DATA, 16, devices)
    return kind.batcher(dataset, DATA)


def fit(name, folder, *, streams, mode="jit", devices=1, stop_at=None):
    config, dataset = MODELS[name], load("synthetic", DATA)
    fed = batcher_of(name, devices)
    spec = DataSpec(dataset.num_users, 30, 5, dataset.train_counts, dataset.user_items)
    events = []
    return loop.fit(
        lambda axis: registry.system(config).build(config, spec, axis_name=axis),
        fed.train,
        fed.example,
        fed.num_examples,
        TrainConfig(batch_size=16, num_epochs=2, patience=0),
        lambda params, state: (0.0, {}),
        seed=3,
        folder=folder,
        mesh=layout.make_mesh(jax.devices()[:devices]),
        mode=mode,
        on_progress=events.append,
        order_of=fed.order,
        stop_asked=lambda: bool(stop_at and events and events[-1].step >= stop_at),
        stream=fed.stream if streams else None,
    ), [event.metrics for event in events if event.kind == "epoch"]


@pytest.mark.parametrize(("name", "devices"), [("dimerec", 1), ("mf", 1), ("mf", 4), ("sasrec", 4)])
def test_streamed_is_resident_and_goes_on_where_it_stopped(name, devices, tmp_path, monkeypatch):
    cuts = []
    resident, metrics = fit(name, tmp_path / "resident", streams=False, devices=devices)
    whole = chunks._steps
    monkeypatch.setattr(chunks, "_steps", lambda *args: cuts.append(whole(*args)) or 3)
    with pytest.raises(Stopped):
        fit(name, tmp_path / "streamed", streams=True, devices=devices, stop_at=2)
    streamed, after = fit(name, tmp_path / "streamed", streams=True, devices=devices)
    jax.tree.map(np.testing.assert_array_equal, streamed.train, resident.train)
    assert after == metrics
    # by default a chunk holds what fits, of so little data an epoch
    assert set(cuts) == {resident.steps // 2}


@pytest.mark.slow
def test_streamed_under_pmap(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "_steps", lambda *args: 4)
    found = [
        fit("dimerec", tmp_path / str(streams), streams=streams, mode="pmap", devices=2)[0].train
        for streams in (False, True)
    ]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_chunks_are_cut_one_ahead_and_cover_an_epoch():
    asked, told, key = [], [], jax.random.key(0)

    def cut(data, index, row_id, keys):
        asked.append(index.tolist())
        told.append(jax.random.key_data(keys).tolist())
        return data[np.maximum(index, 0).reshape(-1)]

    stream = Stream(cut, lambda *args: None)
    order = np.arange(10, dtype=np.int32).reshape(5, 2) + 20
    chunks_of = chunks.streamed(np.arange(40), stream, key, lambda x: x, steps=2)
    found = list(chunks_of(order, 10, 1))
    assert [(each.first, each.stop) for each in found] == [(1, 3), (3, 5)]
    assert [each.data.tolist() for each in found] == [[22, 23, 24, 25], [26, 27, 28, 29]]
    assert found[0].order.tolist() == [[0, 1], [2, 3]]
    # each batch is drawn by the key of its update, as in `parallel`
    own = [parallel.cut_key(key, jnp.int32(update)) for update in (11, 12, 13, 14)]
    assert sum(told, []) == [jax.random.key_data(each).tolist() for each in own]
    last = list(chunks_of(order, 0, 4))
    assert asked[-1] == [[28, 29], [-1, -1]]  # the shape stays, empty slots fill it
    assert (last[0].first, last[0].stop, last[0].order.tolist()) == (4, 5, [[0, 1], [-1, -1]])


def test_data_that_fit_stay_on_the_devices():
    data = {"items": np.zeros(4, np.float32), "users": (np.zeros(2, np.int32),)}
    assert [chunks.fits(data, most) for most in (24, 23)] == [True, False]
    assert chunks.fits(data)


def test_several_processes_cut_their_shares_unless_they_are_asked_not_to(monkeypatch):
    data = np.zeros(4, np.float32)
    for processes, asked, stays in (
        (1, "auto", True), (1, "false", False), (2, "auto", False), (2, "true", True),
    ):  # fmt: skip
        monkeypatch.setattr(jax, "process_count", lambda: processes)  # noqa: B023
        assert chunks.stays(data, asked) == stays
    monkeypatch.setattr(chunks.fits, "__defaults__", (8,))
    monkeypatch.setattr(jax, "process_count", lambda: 1)
    assert not chunks.stays(data, "auto")


@pytest.mark.parametrize("name", MODELS)
def test_a_device_holds_its_part_of_a_chunk(name):
    held = {}
    for devices in (1, 2, 8):
        fed, mesh = batcher_of(name, devices), layout.make_mesh(jax.devices()[:devices])
        updates = parallel.jit_updates(None, fed.stream.example, mesh, join=fed.stream.join)
        order = np.arange(48, dtype=np.int32).reshape(3, 16)
        chunks_of = chunks.over(fed.train, fed.stream, jax.random.key(0), updates)
        leaves = jax.tree.leaves(next(iter(chunks_of(order, 0, 0))).data)
        for leaf in leaves:
            assert leaf.shape[0] == devices and leaf.sharding.spec == P("data")
            assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}
        held[devices] = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    for devices in (2, 8):  # where lists begin there is one place more than lists
        assert held[1] / devices <= held[devices] <= held[1] / devices + 4
