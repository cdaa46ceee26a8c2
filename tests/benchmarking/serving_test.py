"""The speed of a trained model, and a classic that is judged like it later."""

import json

import jax
import numpy as np
import pytest

from jaxrec_diff import cli
from jaxrec_diff.benchmarking import serving, timing
from jaxrec_diff.experiments import restore
from jaxrec_diff.inference import recommender
from jaxrec_diff.reporting import leaderboard


def test_users_a_second_of_the_lists_that_a_user_would_get(clicks_run, monkeypatch):
    restored = restore.restore(restore.reopen(clicks_run), clicks_run)
    asked = {}

    def measured(run, repeats):
        asked["items"] = np.concatenate([np.asarray(part[0]) for part in run()])
        return timing.Timing(0.5, 0.4, 0.6, 0.25, repeats)

    monkeypatch.setattr(timing, "measured", measured)
    found = serving.speed(restored)
    assert (found["users_per_second"], found["users_per_processor_second"]) == (512.0, 1024.0)
    assert found["parameters"] == sum(x.size for x in jax.tree.leaves(restored.params))
    assert (found["reverse_steps"], found["batch"], found["k"]) == (4, 256, 10)
    # whole histories of the test split, over again from the first where there are fewer rows
    test = restored.phase.dataset.test
    histories = [
        test.items[a:b] for a, b in zip(test.start, test.end, strict=True)
    ]  # fmt: skip
    rows = len(histories)
    made = serving._histories(restored)
    assert len(made.user) == 256 > rows
    for row in (0, 1, rows - 1, rows, 255):
        own = made.items[made.offsets[row] : made.offsets[row + 1]]
        np.testing.assert_array_equal(own, histories[row % rows])
    one = recommender.of(restored, k=10, batch_size=256).rank(made, 0)
    np.testing.assert_array_equal(asked["items"], np.concatenate([np.asarray(p[0]) for p in one]))


def test_a_classic_judged_later_is_the_one_that_training_would_have_judged(clicks_run, tmp_path):
    output, beside = tmp_path / "ease.json", tmp_path / "ease.parquet"
    command = [
        "evaluate", f"--workdir={clicks_run}", "--eval.controls=ease", "--eval.control-trials=2",
        "--speed", f"--output={output}", f"--per-user={beside}", "--quiet",
    ]  # fmt: skip
    assert cli.main(command) == 0
    told = json.loads(output.read_text())
    assert told["serving"]["users_per_second"] > 0 and told["serving"]["repeats"] > 1
    assert told["control_seconds"]["ease"] > 0 and told["controls"]["ease"]["trials"] == 2
    run = leaderboard.read(clicks_run)
    more = leaderboard.with_baseline(run, "ease", output)
    assert more.values.keys() - run.values.keys() == {
        name for name in more.values if name.startswith("ease:")
    }
    assert more.results["control_commits"] == {"ease": told["commit"]}
    mean = float(more.values["ease:ndcg@10"].mean(dtype=np.float64))
    assert mean == pytest.approx(more.results["controls"]["ease"]["ndcg@10"], rel=1e-6) and mean > 0
    assert "ease" in {entry.name for entry in leaderboard.board([more], resamples=50).entries}
    other = run._replace(users=run.users[::-1])
    with pytest.raises(ValueError, match="was not judged on the rows of"):
        leaderboard.with_baseline(other, "ease", output)
