"""Lists laid side by side."""

import numpy as np

from jaxrec_diff.evaluation import lists


def test_overlap_is_the_mean_of_shared_over_all():
    one = np.array([[1, 2, 3], [4, 5, 0], [0, 0, 0], [1, 2, 3]])
    other = np.array([[3, 2, 1], [5, 6, 0], [0, 0, 0], [4, 5, 6]])
    np.testing.assert_allclose(lists.overlap(one, other), (1 + 1 / 3 + 1 + 0) / 4)
