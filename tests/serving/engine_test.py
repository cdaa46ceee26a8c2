"""What is served is what `bin/recommend` says, whoever asks at the same time; and compiled once."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.diffusion import process
from jaxrec_diff.experiments import phases, restore
from jaxrec_diff.inference import recommend, recommender
from jaxrec_diff.models import registry
from jaxrec_diff.ops import streams
from jaxrec_diff.serving.engine import Engine, Question
from jaxrec_diff.serving.limits import Limits

FAST = {"dimerec", "mf"}  # a walk over sequences, and a model of the matrix that knows users
COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: COMPILED.append(event))


def compilations() -> int:
    """Of XLA, in this process so far."""
    return sum(event.endswith("backend_compile_duration") for event in COMPILED)


def raw_histories(dataset, count: int, longest: int = 9) -> list[list]:
    rng = np.random.default_rng(count)
    trained = np.flatnonzero(dataset.train_counts > 0)
    sizes = rng.integers(1, longest + 1, count)
    return [dataset.item_ids[rng.choice(trained, size, replace=False)].tolist() for size in sizes]


def presets() -> list:
    slow = pytest.mark.slow
    return [
        pytest.param(name, marks=[] if name in FAST else [slow]) for name in config.preset_names()
    ]


@pytest.mark.parametrize("name", presets())
def test_lists_are_those_of_the_python_call_and_walks_end_in_them(name, untrained, serve):
    restored = untrained(name)
    dataset, server = restored.phase.dataset, serve(restored)
    asked = raw_histories(dataset, 5)
    own = recommender.of(restored, k=6, seeds=2, batch_size=8)
    want = recommend.recommend(own, histories=asked)
    got = server.post("/recommend", {"histories": asked, "k": 6, "draws": 2}).body["lists"]
    first = [draw["items"] for draw in got[0]["draws"]]
    for mine, theirs in zip(got, want, strict=True):
        assert mine["items"] == theirs.items and mine["user"] == theirs.user
        np.testing.assert_allclose(mine["scores"], theirs.scores, rtol=1e-4, atol=1e-5)
        assert mine["spread"] == pytest.approx(theirs.spread, abs=1e-6)
        assert len(mine["draws"]) == 2 and not mine["fallback"]
    users = dataset.user_ids[[3, 1]].tolist()
    want = recommend.recommend(own, users=users)
    got = server.post("/recommend", {"users": users, "k": 6, "draws": 2}).body["lists"]
    assert [each["items"] for each in got] == [each.items for each in want]
    assert [each["user"] for each in got] == users

    walk = server.post("/walk", {"history": asked[0], "draws": 2, "nearest": 6})
    about = server.get("/about").body["walk"]
    if restored.model.chain is None:
        assert walk.status == 404 and about["steps"] is None
        assert walk.body == {"error": about["why"]} and name in about["why"]
        return
    assert walk.status == 200 and walk.body["steps"] == about["steps"] == walk.body["shown"][-1]
    assert [len(draw) for draw in walk.body["draws"]] == [len(walk.body["shown"])] * 2
    assert [draw[-1]["items"] for draw in walk.body["draws"]] == first


def test_a_walk_begins_in_noise_and_is_that_of_the_sampler(untrained):
    """Along the way against a float64 product of the chain's own trajectory."""
    restored = restore.honest(untrained("dimerec"))
    phase, model, params, state = restored
    made = Engine(restored, Limits(shown=5, places=20))
    history = np.array([4, 9, 2], np.int32)
    (walk,) = made.walk([Question(history, row=0, k=4)], 2)
    assert made.shown == [0, 6, 12, 18, 24]
    kind = registry.input_of(phase.settings.model)
    nobody = np.zeros(1, np.int32)
    rows = np.asarray(model.head(params, state).table, np.float64)
    table = rows[1 : phase.dataset.num_items + 1]

    @jax.jit
    def walked(key):
        query = kind.from_history(history[None], nobody, nobody, phase.settings.data)
        return process.trajectory(model.chain(params, state, key, query))

    for draw in range(2):
        path = np.asarray(walked(streams.draw(phase.settings.seed, draw)), np.float64)
        for place, taken in enumerate(made.shown):
            scores = path[taken, 0] @ table.T
            scores[phase.dataset.train_counts == 0] = scores[history - 1] = -np.inf
            best = np.argsort(-scores)[:4]
            assert walk.items[draw, place].tolist() == (best + 1).tolist()
            np.testing.assert_allclose(walk.scores[draw, place], scores[best], rtol=1e-4)
            end = walk.items[draw, -1, 0] - 1
            assert walk.place[draw, place] in (0, (scores >= scores[end]).sum())
            assert (walk.place[draw, place] == 0) == ((scores >= scores[end]).sum() > 20)
    assert walk.items[0, 0].tolist() != walk.items[1, 0].tolist()  # noise is each draw's own


def test_a_sampler_in_closed_form_says_that_its_walks_are_others(untrained, serve):
    restored = untrained("dreamrec")
    own = restored.phase.settings
    sampler = replace(own.model.sampler, kind="closed_form")
    changed = replace(own, model=replace(own.model, sampler=sampler))
    phase = phases.changed(restored.phase, settings=changed)
    server = serve(restored._replace(phase=phase, model=phases.model_of(phase)))
    assert "closed form" in server.get("/about").body["walk"]["why"]


def test_a_list_does_not_depend_on_who_else_asks(untrained):
    """To the bit in a batch of one size, to rounding over sizes."""
    restored = untrained("dimerec")
    made = Engine(restored, Limits())
    histories = [np.array(each, np.int32) + 1 for each in ([3], [5, 8, 1], [9, 2], [7, 7, 6, 5])]
    questions = [
        Question(items, row=row % 2, k=4 + row, include_seen=row == 1)
        for row, items in enumerate(histories)
    ]
    together = made.recommend(questions, 2)
    for question, answer in zip(questions, together, strict=True):
        (alone,) = made.recommend([question], 2)
        beside = made.recommend([question, *questions[::-1]], 2)[0]
        np.testing.assert_array_equal(beside.items, answer.items)
        np.testing.assert_array_equal(beside.scores, answer.scores)
        np.testing.assert_array_equal(alone.items, answer.items)
        np.testing.assert_allclose(alone.scores, answer.scores, rtol=1e-5)
        assert len(answer.items) == question.k and alone.spread == answer.spread
        assert not question.include_seen == (not set(answer.items) & set(question.items))


def test_requests_share_batches_and_compile_nothing(untrained, serve):
    restored = untrained("mf")
    server = serve(restored)
    server.engine.warm()
    asked = raw_histories(restored.phase.dataset, 150)
    want = [server.post("/recommend", {"histories": [each], "k": 5}).body for each in asked[:20]]
    programs, before = server.engine.programs, compilations()
    batches = server.counted("jaxrec_batch_histories_count")
    bodies = [{"histories": [each], "k": 5} for each in asked[:60]]
    bodies += [{"histories": asked[60 + 30 * part : 90 + 30 * part], "k": 7} for part in range(3)]
    got = server.post_all("/recommend", bodies)
    assert [reply.status for reply in got] == [200] * 63
    for mine, theirs in zip(want, got, strict=False):
        assert mine["lists"][0]["items"] == theirs.body["lists"][0]["items"]
        assert mine["lists"][0]["scores"] == pytest.approx(theirs.body["lists"][0]["scores"])
    assert (server.engine.programs, compilations()) == (programs, before)
    assert 3 <= server.counted("jaxrec_batch_histories_count") - batches <= 8
    longer = {"histories": [asked[0] * 20]}
    assert server.post("/recommend", longer).status == 200
    again = compilations()
    assert server.engine.programs == programs + 1 and again > before  # so it is counted
    assert server.post("/recommend", longer | {"k": 3}).status == 200
    assert (server.engine.programs, compilations()) == (programs + 1, again)
