"""Gradients of several losses as one, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrec_diff.ops import gradients

# the gradients of the losses below, one after the other, over both parameters
FIRST = np.array([1.0, 2.0, 0.0])


@pytest.mark.parametrize("second", [[-1.0, 1.0, 1.0], [-2.0, 0.5, 1.0]])
def test_what_is_against_the_other_is_taken_away(second):
    params, slopes = {"a": jnp.array([0.3, 0.1]), "b": jnp.array(2.0)}, np.array(second)

    def terms(params):
        x = jnp.append(params["a"], params["b"])
        return (x @ FIRST, x @ slopes), x.sum()

    (value, further), got = jax.value_and_grad(gradients.at_peace, 1, has_aux=True)(terms, params)
    assert value == pytest.approx(sum(terms(params)[0])) and further == pytest.approx(2.4)
    want = FIRST + slopes
    if FIRST @ slopes < 0:  # -1.0 for the second pair, 1.0 for the first
        of_first = FIRST - (FIRST @ slopes) / (slopes @ slopes) * slopes
        of_second = slopes - (FIRST @ slopes) / (FIRST @ FIRST) * FIRST
        assert of_first @ slopes == pytest.approx(0) and of_second @ FIRST == pytest.approx(0)
        want = of_first + of_second
    np.testing.assert_allclose(np.append(got["a"], got["b"]), want, rtol=1e-6)
