"""Two processes that train together end where one does, stop together, and one goes on."""

import json

import jax
import numpy as np
import pytest

from jaxrec_diff import layout
from jaxrec_diff.training import loop
from jaxrec_diff.training.config import TrainConfig
from tests import processes
from tests.training.loop_test import DATA, toy


def fit(folder, devices, events, stop_asked=lambda: 0):
    def evaluate(params, state):
        del state
        found = float(np.abs(layout.whole(params)["w"]).sum())
        return -found, {"size": found}

    return loop.fit(
        lambda axis: toy(),
        DATA,
        lambda data, index, row, key: data[index],
        len(DATA),
        TrainConfig(batch_size=8, learning_rate=0.05, num_epochs=6, patience=0),
        evaluate,
        seed=1,
        folder=folder,
        mesh=layout.make_mesh(devices),
        on_progress=events.append,
        stop_asked=stop_asked,
    )


_TOGETHER = """
import json, pathlib
from jaxrec_diff import layout
from jaxrec_diff.training import progress
from tests.training.processes_test import fit

me, folder, events = jax.process_index(), pathlib.Path({folder!r}), []
done = fit(folder / "whole", jax.devices(), events)
said = {{"w": layout.whole(done.train.params["w"]).tolist(), "step": done.best_step,
         "losses": [e.metrics["loss"] for e in events if e.kind == "epoch"]}}
events.clear()
try:  # the second process alone is asked to stop
    fit(folder / "cut", jax.devices(), events, lambda: 15 * (me == 1 and events[-1].step >= 11))
except progress.Stopped as stopped:
    said |= {{"reason": stopped.reason, "at": events[-1].step}}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    program = _TOGETHER.format(folder=str(folder))
    return folder, [json.loads(out.splitlines()[-1]) for out in processes.outputs(program)]


def test_two_processes_train_as_one_does(together, tmp_path):
    _, (one, two) = together
    assert one == two
    events = []
    alone = fit(tmp_path, jax.devices()[:4], events)
    assert one["step"] == alone.best_step
    np.testing.assert_allclose(one["w"], alone.train.params["w"], atol=1e-6)
    losses = [event.metrics["loss"] for event in events if event.kind == "epoch"]
    np.testing.assert_allclose(one["losses"], losses, rtol=1e-6)


def test_a_signal_to_one_stops_both_and_other_devices_go_on(together):
    folder, (one, two) = together
    assert one["reason"] == two["reason"] == 15
    assert 11 <= one["at"] == two["at"] < 48
    events = []
    after = fit(folder / "cut", jax.devices()[:1], events)
    assert (events[0].kind, events[0].step) == ("resume", one["at"])
    assert after.best_step == one["step"]
    np.testing.assert_allclose(after.train.params["w"], one["w"], atol=1e-6)
