"""What lists add up to, by hand."""

import jax.numpy as jnp
import numpy as np

from jaxrec_diff.batches.types import Answer
from jaxrec_diff.evaluation import diagnostics
from jaxrec_diff.evaluation.topk import Top
from jaxrec_diff.evaluation.types import LIST


def test_sums_of_lists_by_hand():
    # items 1 .. 20 are listed, and 21 is the extra entry; item 3 was never trained, as was 21
    items = np.tile(np.arange(1, LIST + 2), (3, 1))
    top = Top(jnp.asarray(-items, jnp.float32), jnp.asarray(items))
    known = np.ones(25, bool)
    known[[2, 20]] = False
    answer = Answer(
        jnp.zeros((3, 1), jnp.int32),
        jnp.array([[3, 3, 7], [21, 5, 0], [3, 4, 5]]),  # 3 is named twice and is one answer
        jnp.array([1.0, 1.0, 0.0]),  # the last row is padding
    )
    found = diagnostics.sums(top, answer, jnp.asarray(known))
    assert float(found["hits"]) == 2 + 1
    assert float(found["untrained_hits"]) == 1
    assert float(found["untrained_slots"]) == 2
    assert found["exposure"].tolist() == [2.0] * LIST + [0.0] * 5
