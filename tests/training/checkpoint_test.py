"""Checkpoints are what was written: digests, ties, and which state is taken when one is damaged."""

import errno
import json
import logging
import shutil
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import SingleDeviceSharding

from jaxrec_diff import layout
from jaxrec_diff.ops import filled
from jaxrec_diff.training import checkpoint, digests, loop
from jaxrec_diff.training.state import TrainState
from tests.training.loop_test import fit


def state(step, value=1.0):
    return TrainState(
        jnp.int32(step),
        {"w": jnp.full((3, 4), value), "b": jnp.zeros(2, jnp.bfloat16)},
        jnp.int32(step),
        (),
        (),
    )


LIKE = checkpoint.abstract(state(0), SingleDeviceSharding(jax.devices()[0]))


def write(folder, scores):
    with checkpoint.manager(folder) as opened:
        for step, score in scores.items():
            checkpoint.save(opened, state(step, float(step)), {"best_step": 0, "sums": {}}, score)
            opened.wait_until_finished()


def test_a_digest_sees_type_shape_and_every_bit():
    base = np.arange(6, dtype=np.float32)
    one = digests.digests({"a": base})
    assert digests.digests({"a": jnp.asarray(base)}) == one == digests.digests({"a": base.copy()})
    flipped = base.copy()
    flipped.view(np.uint8)[7] ^= 1
    others = (
        base.reshape(2, 3), base.astype(np.float64), base.view(np.int32), flipped, -0.0 * base,
        base[:0], base[0],
    )  # fmt: skip
    found = [tuple(digests.digests({"a": other}).values()) for other in (base, *others)]
    assert len(set(found)) == len(found)
    assert digests.digests({"a": base.reshape(2, 3).T}) == digests.digests(
        {"a": np.ascontiguousarray(base.reshape(2, 3).T)}
    )
    assert list(digests.digests({"b": {"c": base}, "a": base})) == ["['a']", "['b']['c']"]
    # over devices as on one
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert digests.digests({"a": jax.device_put(base, rows)}) == one


@pytest.mark.parametrize("what", ["array", "counter", "score", "no seal", "no digests", "moved"])
def test_what_is_not_what_was_written_is_damaged(tmp_path, what):
    write(tmp_path, {8: 0.5, 16: 0.7})
    meta = tmp_path / "16" / "meta" / "metadata"
    if what == "array":  # other values under the same names and shapes, as a flipped bit leaves
        with checkpoint.manager(tmp_path / "other") as opened:
            checkpoint.save(opened, state(16, 16.000002), {"best_step": 0, "sums": {}}, 0.7)
        shutil.rmtree(tmp_path / "16" / "state")
        shutil.copytree(tmp_path / "other" / "16" / "state", tmp_path / "16" / "state")
    elif what == "score":
        (tmp_path / "16" / "metrics" / "metrics").write_text('{"score": 0.71, "step": 16}')
    elif what == "moved":
        (tmp_path / "16").rename(tmp_path / "24")
        (tmp_path / "24" / "metrics" / "metrics").write_text('{"score": 0.7, "step": 24}')
    else:
        kept = json.loads(meta.read_text())
        if what == "counter":
            kept["best_step"] = 8
        else:
            del kept[what.removeprefix("no ")]
        meta.write_text(json.dumps(kept))
    damaged = (24,) if what == "moved" else (16,)
    for found in (
        checkpoint.restore(tmp_path, LIKE), checkpoint.restore_best(tmp_path, LIKE)
    ):  # fmt: skip
        assert (int(found.train.step), found.score, found.damaged) == (8, 0.5, damaged)
        assert found.meta == {"best_step": 0, "sums": {}}
        np.testing.assert_array_equal(found.train.params["w"], np.full((3, 4), 8.0))


def test_steps_of_before_there_were_digests_are_read(tmp_path):
    write(tmp_path, {8: 0.5})
    (tmp_path / "8" / "meta" / "metadata").write_text('{"best_step": 8, "sums": {}}')
    (tmp_path / "8" / "metrics" / "metrics").write_text('{"score": 0.5}')
    for found in (checkpoint.restore(tmp_path, LIKE), checkpoint.restore_best(tmp_path, LIKE)):
        assert (int(found.train.step), found.score, found.damaged) == (8, 0.5, ())
        assert found.meta == {"best_step": 8, "sums": {}}


def test_tables_of_before_they_were_filled_up_are_filled_up(tmp_path):
    rng = np.random.default_rng(0)
    adam, mesh = optax.adam(0.1), layout.make_mesh(model=4)
    params = {"items": jnp.asarray(rng.normal(size=(21, 3))), "w": jnp.ones((3, 3))}
    old = TrainState(jnp.int32(7), params, (), adam.init(params), params)
    with checkpoint.manager(tmp_path) as opened:
        checkpoint.save(opened, old, {}, 0.5)
        opened.wait_until_finished()
    longer = params | {"items": filled.padded(params["items"])}
    like = jax.eval_shape(lambda: old._replace(params=longer, opt_state=adam.init(longer)))
    like = like._replace(ema=like.params)
    found = checkpoint.restore(tmp_path, checkpoint.abstract(like, layout.shardings(like, mesh)))
    assert found.damaged == () and int(found.train.step) == 7
    for part in (found.train.params, found.train.ema):
        assert part["items"].sharding.spec == jax.sharding.PartitionSpec("model")
        np.testing.assert_array_equal(part["items"][:21], params["items"])
        assert not np.any(part["items"][21:]) and part["items"].shape == (256, 3)
    assert found.train.opt_state[0].mu["items"].shape == (256, 3)
    # of another size than a filled table has, it is no table of before
    other = jax.eval_shape(lambda: old._replace(params=params | {"w": jnp.ones((4, 3))}))
    with pytest.raises(ValueError, match="can be read"):
        checkpoint.restore(tmp_path, checkpoint.abstract(other, layout.shardings(other, mesh)))


def test_of_equal_scores_the_first_is_the_best_and_stays(tmp_path):
    write(tmp_path, {8: 0.1, 16: 0.5, 24: 0.5, 32: 0.5})
    write(tmp_path, {40: 0.5, 48: 0.2, 56: 0.5})  # a run that goes on
    kept = {int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()}
    assert kept == {16, 48, 56}
    assert int(checkpoint.restore_best(tmp_path, LIKE).train.step) == 16


def test_a_folder_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    write(tmp_path, {8: 0.5, 16: 0.7})

    def refuse(*_):
        raise ValueError("PERMISSION_DENIED: Error opening file")

    monkeypatch.setattr(checkpoint, "_read", refuse)
    with pytest.raises(ValueError, match="16 cannot be read now: PERMISSION_DENIED"):
        checkpoint.restore(tmp_path, LIKE)


def junk(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"junk")


@pytest.mark.parametrize("resumed", [False, True])
def test_ties_keep_the_first_step_in_the_loop_as_on_disk(tmp_path, resumed):
    scores = [0.1, 0.5, 0.5, 0.2, 0.5, 0.5]
    if resumed:
        with pytest.raises(Exception, match="stopped at step 2"):
            fit(tmp_path, scores=scores, stop_at=24)
    done = fit(tmp_path, scores=scores[3:] if resumed else scores)
    assert (done.best_step, done.best_score, int(done.train.step)) == (16, 0.5, 16)


def test_the_end_of_training_says_which_state_is_judged(tmp_path):
    events = []

    def damage(event):
        events.append(event)
        if event.kind == "epoch" and event.step == 48:
            junk(tmp_path / "16" / "state")

    done = fit(tmp_path, events=type("Events", (list,), {"append": lambda _, e: damage(e)})())
    assert (done.best_step, done.best_score, int(done.train.step)) == (40, 0.15, 40)
    (lost,) = [event for event in events if event.kind == "best lost"]
    assert (lost.step, lost.metrics) == (16, {"step": 40})


def test_a_run_that_goes_on_sets_a_damaged_best_aside(tmp_path):
    fit(tmp_path, scores=[0.1, 0.9, 0.3, 0.2, 0.15, 0.12])
    junk(tmp_path / "16" / "state")
    events = []
    done = fit(tmp_path, scores=[0.4, 0.1], num_epochs=8, events=events)
    assert [(e.kind, e.step) for e in events[:2]] == [("damaged", 16), ("resume", 48)]
    assert (done.best_step, int(done.train.step)) == (56, 56)  # kept, as nothing better is left
    assert [e.step for e in events if e.kind == "best lost"] == [16]


def test_a_best_checkpoint_that_is_gone_is_known_by_the_newest(tmp_path):
    whole = fit(tmp_path)
    like = checkpoint.abstract(whole.train, SingleDeviceSharding(jax.devices()[0]))
    loaded = loop.load(tmp_path, like)
    assert (loaded.best_step, int(loaded.train.step)) == (16, 16)
    shutil.rmtree(tmp_path / "16")
    loaded = loop.load(tmp_path, like)
    assert (loaded.best_step, int(loaded.train.step)) == (16, 40)


def test_threads_that_end_after_one_that_failed_print_nothing(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    write(tmp_path, {8: 0.1})
    assert checkpoint.restore(tmp_path, LIKE) and checkpoint.restore(tmp_path, LIKE)
    hook = sys.unraisablehook
    for error in (RuntimeError("Event loop is closed"), RuntimeError("x"), ValueError("x")):
        hook(SimpleNamespace(exc_value=error))
    assert [repr(late.exc_value) for late in told] == ["RuntimeError('x')", "ValueError('x')"]


def test_a_thread_that_still_writes_does_not_stop_the_next_run(tmp_path, monkeypatch):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp"
    unfinished.mkdir()
    remove, calls = shutil.rmtree, []

    def while_it_writes(path, *more, **options):
        calls.append(path)
        if len(calls) == 1:
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))
        remove(path, *more, **options)
        if len(calls) == 2:
            (unfinished / "late").mkdir(parents=True)  # made anew

    monkeypatch.setattr(shutil, "rmtree", while_it_writes)
    with checkpoint.manager(tmp_path):
        assert calls == [unfinished] * 4 and not unfinished.exists()


def test_arrays_that_fail_after_the_first_say_nothing(caplog):
    checkpoint._hush_late_threads()
    told = logging.getLogger("asyncio")
    told.error("Task exception was never retrieved\nfuture: <Task ...>")
    told.error("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
