"""Step embeddings against printed values."""

import math

import jax.numpy as jnp
import numpy as np

from jaxrec_diff.nets.embeddings import sinusoidal


def test_interleaved_step_embedding():
    got = sinusoidal(jnp.array([1, 1000]), 8, variant="interleaved")
    want = [
        [0.84147098, 0.54030231, 0.09983342, 0.99500417, 0.00999983, 0.99995, 0.001, 0.9999995],
        [
            0.82687954, 0.56237908, -0.50636564, 0.86231887,
            -0.54402111, -0.83907153, 0.84147098, 0.54030231,
        ],
    ]  # fmt: skip
    # float32 sine of an angle of 1000 keeps five digits
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-7)


def test_the_two_sinusoids_of_step_three():
    # exp(-ln(1e4) k / 3) and exp(-ln(1e4) k / 4), worked with math alone
    for variant, spread, order in (("sin_cos", 3, (math.sin, math.cos)),
                                   ("cos_sin", 4, (math.cos, math.sin))):  # fmt: skip
        angles = [3 * 1e4 ** (-k / spread) for k in range(4)]
        want = [f(angle) for f in order for angle in angles]
        np.testing.assert_allclose(sinusoidal(jnp.array(3), 8, variant=variant), want, rtol=1e-5)
