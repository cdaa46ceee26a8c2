"""Published figures beside ours: what may be compared, and what is said where it may not."""

import json

import pytest

from jaxrec_diff.config import presets
from jaxrec_diff.config.facts import Figure
from jaxrec_diff.evaluation import metrics
from jaxrec_diff.reporting import parity

COMMAND = "bin/train --model=diffrec --data=$JAXREC_DATA/ml-1m-clean"


def result(folder, name, seed, flags="", **official):
    kept = {
        "model": "diffrec",
        "dataset": "ml-1m-clean",
        "command": f"{COMMAND} --seed={seed}{flags}",
        "protocol": "honest",
        "metrics": dict.fromkeys(official, 0.9),
        "other_protocols": {"official": {"metrics": official}},
    }
    (folder / f"{name}.json").write_text(json.dumps(kept))


def about(figures, metric):
    (one,) = [
        each
        for each in figures
        if (each.figure.data, each.figure.metric) == ("ml-1m-clean", metric)
    ]
    return one


def test_seeds_of_one_command_are_one_run_and_official_figures_count(tmp_path):
    result(tmp_path, "a", 1, **{"recall@20": 0.17, "recall@10": 0.05})
    result(tmp_path, "b", 2, **{"recall@20": 0.18, "recall@10": 0.06})
    (tmp_path / "speed.json").write_text("[1, 2]")  # no run
    (run,) = parity.measured(tmp_path)
    assert run.seeds == 2 and run.files == ("a.json", "b.json") and run.command == COMMAND
    found = parity.parity("diffrec", [run])
    near, far = about(found, "recall@20"), about(found, "recall@10")
    assert near.ours == pytest.approx(0.175) and near.verdict == "reproduced"  # of .1787
    assert far.ours == pytest.approx(0.055) and far.verdict == "lower"  # of .1058
    assert about(found, "ndcg@10").verdict == "not comparable"  # nobody measured it
    others = [each for each in found if each.figure.data != "ml-1m-clean"]
    assert others and {each.verdict for each in others} == {"not run"}


def test_other_settings_are_not_compared_and_the_run_that_may_be_is_preferred(tmp_path):
    result(tmp_path, "a", 1, " --model.dims=8 --train.num-epochs=2", **{"recall@20": 0.2})
    one = about(parity.parity("diffrec", parity.measured(tmp_path)), "recall@20")
    assert one.verdict == "not comparable" and one.ours == pytest.approx(0.2)
    assert one.why == "other settings: model.dims=8, train.num_epochs=2"
    # a run that stopped by itself was not cut short
    one = json.loads((tmp_path / "a.json").read_text())
    one |= {"command": f"{COMMAND} --train.num-epochs=9", "curve": [{"epoch": 4.0}]}
    (early,), (cut,) = (
        parity.of_results({"a": one | {"curve": [{"epoch": epoch}]}}) for epoch in (4.0, 9.0)
    )
    assert parity.other_settings("diffrec", early) == ""
    assert parity.other_settings("diffrec", cut) == "train.num_epochs=9"
    # what only lengthens training, or is judged otherwise, is no other setting
    result(tmp_path, "b", 1, " --train.num-epochs=9999 --eval.ks=20", **{"recall@20": 0.1})
    one = about(parity.parity("diffrec", parity.measured(tmp_path)), "recall@20")
    assert one.verdict == "lower" and one.ours == pytest.approx(0.1)


def test_results_of_workdirs_are_read_as_well_and_the_first_counts(tmp_path):
    result(tmp_path, "a", 1, **{"recall@20": 0.17})
    own = {
        "model": "diffrec", "dataset": "ml-1m-clean", "protocol": "honest", "metrics": {},
        "command": f"{COMMAND} --workdir=x --seed=3", "seed": 3,
        "protocols": {"official": {"metrics": {"recall@20": 0.3}}},
    }  # fmt: skip
    found = (*parity.of_results({"mine": own}), *parity.measured(tmp_path))
    assert about(parity.parity("diffrec", found), "recall@20").ours == pytest.approx(0.3)


def test_a_figure_that_was_got_otherwise_is_never_called_lower():
    figure = Figure("amazon-beauty", "ndcg@10", 0.28, "somebody", "ranks among 101")
    one = parity._judged(figure, 0.03, 1, "")
    assert (one.verdict, one.why) == ("not comparable", "ranks among 101")


def test_a_figure_is_compared_by_the_rules_that_it_was_ranked_by(tmp_path):
    kept = {
        "model": "sasrec", "dataset": "amazon-beauty", "protocol": "official", "seed": 0,
        "command": "bin/train --model=sasrec --data=x", "metrics": {"hr@10": 0.08},
        "other_protocols": {"honest": {"metrics": {"hr@10": 0.095}}},
    }  # fmt: skip
    (best, quoted) = [
        each
        for each in parity.parity("sasrec", parity.of_results({"a": kept}))
        if (each.figure.data, each.figure.metric) == ("amazon-beauty", "hr@10")
    ]
    assert (best.ours, best.verdict) == (0.095, "reproduced")  # of .0974
    assert (quoted.ours, quoted.why) == (0.08, "of the binary loss")


def test_other_rules_and_another_backbone_are_other_settings():
    def apart(name, data, flags):
        run = parity.Measured(name, data, f"bin/train --model={name} {flags}", 1, {}, ())
        return parity.other_settings(name, run)

    assert apart("diffrec", "ml-1m-clean", "--eval.mask-seen=false") == "eval.mask_seen=False"
    backbone = "--backbone.model.width=32 --backbone.eval.seeds=3"
    assert apart("ddrm", "ml-1m-noisy", backbone) == "backbone.model.width=32"
    assert apart("ddrm", "ml-1m-noisy", "--backbone.train.num-epochs=1") == (
        "backbone.train.num_epochs=1"
    )


def test_figures_of_validation_rows_are_nobodys(tmp_path):
    result(tmp_path, "a", 1, **{"recall@20": 0.2})
    kept = json.loads((tmp_path / "a.json").read_text())
    assert len(parity.of_results({"a": kept | {"split": "test"}})) == 1
    assert parity.of_results({"a": kept | {"split": "valid"}}) == ()


def test_a_table_shows_the_data_at_hand_else_where_it_came_nearest():
    near = parity.Parity(Figure("zhihu", "hr@20", 0.02), 0.02, 3, "reproduced")
    here = parity.Parity(Figure("yc", "hr@20", 0.05), None, 0, "not run", "no results of it here")
    assert parity.nearest([here, near], "yc") == here
    assert parity.nearest([here, near], "ml-100k") == near
    assert parity.nearest([], "yc") is None
    far = parity.Parity(Figure("yc", "hr@20", 0.05), 0.01, 1, "not comparable", "one epoch")
    nearer = parity.Parity(Figure("zhihu", "hr@20", 0.02), 0.01, 1, "not comparable", "ten epochs")
    assert parity.nearest([far, nearer], "") == nearer
    assert parity.line(here).startswith("yc hr@20: .0500 in the paper, not run")


@pytest.mark.parametrize("name", presets.preset_names())
def test_published_figures_are_shares_of_known_metrics(name):
    for figure in presets.load(name).facts.published:
        assert 0 < figure.value < 1 and figure.metric in metrics.names((5, 10, 20, 50))
