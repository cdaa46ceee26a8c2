"""What is shown of a data set, and what was chosen by somebody."""

import numpy as np

from jaxrec_diff.batches import batcher
from jaxrec_diff.data import views
from jaxrec_diff.ops import ragged


def test_generated_items_are_shown_but_were_not_chosen(dataset):
    prefix = np.zeros((dataset.num_users, 2), np.int32)
    prefix[3], prefix[5, 0] = (7, 8), 9
    made = views.longer(dataset, prefix)
    assert batcher.shown(made) is made.shown
    assert batcher.shown(dataset) == {"valid": dataset.valid, "test": dataset.test}
    assert ragged.chosen(dataset.user_items) is dataset.user_items
    rows = [
        [part.items[a:b].tolist() for a, b in zip(part.start, part.end, strict=True)]
        for part in (ragged.chosen(made.user_items), dataset.user_items)
    ]
    assert rows[0] == rows[1]
