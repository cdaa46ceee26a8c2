"""Which figure picks the checkpoint of a phase."""

import pytest

from jaxrec_diff import config
from jaxrec_diff.experiments import selection


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("sasrec", {"": "hr@20"}),
        ("ddrm", {"backbone": "recall@20", "": "recall@20"}),
        ("diffuasr", {"backbone": "hr@20", "generator": "loss", "": "hr@20"}),
    ],
)
def test_every_phase_has_its_metric(name, wanted):
    experiment = config.preset(name, "synthetic").experiment
    assert {phase: selection.metric_of(experiment, phase) for phase in wanted} == wanted
    # a phase of its own metric is told from the run's
    flags = ["--eval.metric=ndcg@10"] if name != "diffuasr" else ["--backbone.eval.metric=ndcg@10"]
    changed = config.parse(experiment, flags)
    differing = {phase for phase in wanted if selection.metric_of(changed, phase) == "ndcg@10"}
    assert differing == ({"backbone", ""} if name == "diffuasr" else {""})
