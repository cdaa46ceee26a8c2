"""Streams against the numbers that are written down: a resumed run must draw on as it began."""

import jax
import numpy as np
import pytest

from jaxrec_diff.ops import streams

NUMBERS = {
    streams.init: 0,
    streams.order: 1,
    streams.training: 2,
    streams.evaluation: 3,
    streams.generation: 4,
}


def bits(key):
    return jax.random.key_data(key).tolist()


@pytest.mark.parametrize("stream", NUMBERS)
def test_a_stream_is_the_seed_with_its_number_folded_in(stream):
    expected = jax.random.fold_in(jax.random.key(7), NUMBERS[stream])
    assert bits(stream(7)) == bits(expected)


def test_draws_follow_the_stream_of_evaluation():
    root = jax.random.fold_in(jax.random.key(7), 3)
    assert bits(streams.draw(7, 2)) == bits(jax.random.fold_in(root, 2))
    traced = jax.jit(lambda seed: jax.random.key_data(streams.draw(seed, 2)))(7)
    assert traced.tolist() == bits(streams.draw(7, 2))


def test_streams_of_the_host():
    made = (streams.uniform_items, streams.resampled_items, streams.candidates)
    for number, stream in enumerate(made):
        expected = np.random.default_rng([5, number]).integers(0, 99, 8)
        assert stream(5).integers(0, 99, 8).tolist() == expected.tolist()
    expected = np.random.default_rng([5, 3, 2]).integers(0, 99, 8)
    assert streams.shuffles(5, 2).integers(0, 99, 8).tolist() == expected.tolist()
    expected = np.random.default_rng([5, 4]).integers(0, 99, 8)
    assert streams.strangers(5).integers(0, 99, 8).tolist() == expected.tolist()
