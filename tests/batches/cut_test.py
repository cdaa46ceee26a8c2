"""Windows, examples, queries and answers against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.batches import cut
from tests.ops.rows import last, random_rows


@pytest.mark.parametrize("compile_it", [False, True])
def test_examples_queries_and_answers(compile_it):
    data = random_rows(1)
    index = np.array([3, -1, 0, 49, -1, 3], np.int32)

    def all_three(index):
        return (
            cut.sequences(data, index, max_len=5),
            cut.queries(data, index, max_len=5),
            cut.answers(data, index, max_seen=25, max_relevant=6),
        )

    example, query, answer = (jax.jit(all_three) if compile_it else all_three)(index)
    for place, row in enumerate(index.tolist()):
        if row < 0:
            assert not np.any(example.seq[place]) and not np.any(query.seq[place])
            assert not np.any(answer.seen[place]) and not np.any(answer.relevant[place])
            continue
        start, end, stop = (int(part[row]) for part in data[1:4])
        history = last(data.items, start, end, 5)
        assert example.seq[place].tolist() == history
        assert query.seq[place].tolist() == history
        assert int(example.target[place]) == data.items[end]
        assert answer.seen[place].tolist() == last(data.items, start, end, 25)
        assert answer.relevant[place].tolist() == last(data.items, end, stop, 6)
    weight = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    assert example.weight.tolist() == weight and answer.weight.tolist() == weight
    assert query.row_id.tolist() == index.tolist()
    assert example.row_id.tolist() == [0, 1, 2, 3, 4, 5]


def test_rows_of_a_shard_keep_their_global_place():
    data = random_rows(2)
    row = jnp.array([8, 9], jnp.int32)
    assert cut.sequences(data, jnp.array([1, 2]), max_len=3, row_id=row).row_id.tolist() == [8, 9]


def test_targets_of_padding_rows_are_real_items():
    """A loss gathers table rows at targets, so 0 would wrap around to the last one."""
    data = random_rows(3)
    found = cut.sequences(data, jnp.array([-1, 5]), max_len=3)
    assert (np.asarray(found.target) >= 1).all()
