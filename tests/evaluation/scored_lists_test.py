"""Best lists of scored rows."""

import numpy as np
import pytest

from jaxrec_diff.classics import scores
from jaxrec_diff.evaluation import topk
from tests.classics import samples


@pytest.mark.parametrize("chunk", [2**22, 40], ids=["whole", "small chunks"])
@pytest.mark.parametrize("mask_seen", [True, False])
def test_lists_are_sorted_scores_without_what_may_not_be_shown(mask_seen, chunk, monkeypatch):
    monkeypatch.setattr(topk, "_SCORES", chunk)
    rows, _, histories = samples.data()
    weights = np.random.default_rng(1).integers(0, 3, (samples.ITEMS,) * 2).astype(float)  # ties
    allowed = np.arange(samples.ITEMS) != 6
    top = topk.of_scores(
        scores.of_weights(weights),
        histories,
        histories,
        num_items=samples.ITEMS,
        k=samples.ITEMS + 2,
        mask_seen=mask_seen,
        allowed=allowed,
    )
    values = samples.matrix() @ weights
    for user, row in enumerate(rows):
        barred = {7} | (set(row) if mask_seen else set())
        want = [i for i in range(1, samples.ITEMS + 1) if i not in barred]
        want.sort(key=lambda item: (-values[user, item - 1], item))
        assert top.items[user].tolist() == want + [0] * (samples.ITEMS + 2 - len(want))
        shown = values[user, np.array(want) - 1]
        np.testing.assert_array_equal(top.scores[user][: len(want)], shown)
        assert (top.scores[user][len(want) :] == -np.inf).all()
