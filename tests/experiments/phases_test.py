"""What one phase makes of what the one before it exports."""

import numpy as np
import pytest

from jaxrec_diff import config
from jaxrec_diff.data import views
from jaxrec_diff.experiments import phases, runs

SMALL = {
    "devices": 1, "data.synthetic.num-users": 80, "data.synthetic.num-items": 40,
    "data.synthetic.num-interests": 4, "data.synthetic.max-length": 9, "data.max-len": 6,
    "data.prefix-len": 2, "train.batch-size": 16, "backbone.train.batch-size": 16,
    "backbone.model.width": 8,
}  # fmt: skip


def small_run(name: str) -> runs.Run:
    chosen = config.preset(name, "synthetic").experiment
    known = config.flag_names(chosen)
    chosen = config.parse(chosen, [f"--{k}={v}" for k, v in SMALL.items() if k in known])
    return runs.prepare(name, chosen, "synthetic")


def test_a_model_is_built_once_for_each_protocol_and_axis():
    (phase,) = small_run("sasrec").phases
    honest, official = phases.model_of(phase), phases.model_of(phases.under(phase, "official"))
    assert phases.model_of(phases.under(phase, "honest")) is honest is not official
    assert phases.model_of(phases.under(phase, "official")) is official
    assert phases.model_of(phase, "data") not in (honest, official)
    assert phases.under(phase, "official").batcher is phase.batcher
    rules = phases.rules_of(phase), phases.rules_of(phases.under(phase, "official"))
    assert [each.mask_seen for each in rules] == [True, False]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sasrec", [("", "sasrec")]),
        ("ddrm", [("backbone", "lightgcn"), ("", "ddrm")]),
        (
            "diffuasr",
            [("backbone", "sasrec"), ("generator", "diffuasr"), ("", "sasrec+diffuasr")],
        ),
    ],
)
def test_the_phases_of_a_run(name, wanted):
    run = small_run(name)
    assert [(phase.name, phase.title) for phase in run.phases] == wanted
    assert [phase.settings.model == run.experiment.model for phase in run.phases] == [
        title == name for _, title in wanted
    ]


def test_a_phase_starts_from_what_the_one_before_exports():
    run = small_run("ddrm")
    first, last = run.phases
    arrays = {"users": np.ones((80, 8), np.float32), "items": np.ones((40, 8), np.float32)}
    bound = phases.bind(first, last, arrays)
    assert bound.spec.exports is arrays and not last.spec.exports
    assert bound.batcher is last.batcher and bound.dataset is run.dataset
    assert phases.model_of(bound) is phases.model_of(bound)


def test_generated_items_lengthen_what_the_last_phase_is_shown_and_nothing_else():
    run = small_run("diffuasr")
    first, generator, last = run.phases
    assert generator.dataset.split.startswith("the first 2 items") and not generator.spec.reader
    prefix = np.random.default_rng(0).integers(1, 41, (80, 2)).astype(np.int32)
    bound = phases.bind(generator, last, {"prefix": prefix})
    longer = views.longer(run.dataset, prefix)
    np.testing.assert_array_equal(bound.dataset.user_items.items, longer.user_items.items)
    np.testing.assert_array_equal(bound.dataset.test.items, longer.test.items)
    assert bound.settings is first.settings and bound.batcher is not first.batcher
    assert not bound.spec.exports


def test_a_row_is_scored_by_what_its_model_sees():
    (of_histories,), (of_rows,) = small_run("sasrec").phases, small_run("diffrec").phases
    test = of_histories.dataset.test
    seen = phases.scored_by(of_histories, "test")
    np.testing.assert_array_equal(seen.end - seen.start, test.end - test.start)
    seen, rows = phases.scored_by(of_rows, "test"), of_rows.dataset.test
    # the validation item is in a history of the test split, and in no training row
    np.testing.assert_array_equal(seen.end - seen.start, rows.end - rows.start - 1)
