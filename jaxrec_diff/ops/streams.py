"""The random streams of a run: one function each, so that those who share one agree.

A run has one seed. On devices a stream is `jax.random.key(seed)` with a number folded in:

    0  initial parameters
    1  order of examples; an epoch folds in its number
    2  noise of training; an update folds in its step and a row its place, and what is drawn while a
       batch is cut has a key of its own within this stream (`training.parallel`)
    3  noise of samplers outside training: validation, tests, recommendations, exported programs;
       where a sampler is drawn from several times, each draw folds in its number
    4  items generated ahead of histories

On the host it is numpy's generator of [seed, number]: 0 and 1 for items put ahead of histories at
random, 2 for candidates that an answer is ranked among, 3, with the number of the draw, for the
order of shuffled histories and 4 for whose x_0 a network is shown. Generated data have a seed of
their own.
"""

import jax
import numpy as np


def init(seed: int) -> jax.Array:
    """Key of the initial parameters."""
    return _stream(seed, 0)


def order(seed: int) -> jax.Array:
    """Key of the order of examples; fold the epoch in."""
    return _stream(seed, 1)


def training(seed: int) -> jax.Array:
    """Key of the noise of updates; fold the step in."""
    return _stream(seed, 2)


def evaluation(seed: int | jax.Array) -> jax.Array:
    """Key of a sampler's noise outside training, for one draw."""
    return _stream(seed, 3)


def draw(seed: int | jax.Array, number: int) -> jax.Array:
    """Key of one of several draws of a sampler's noise outside training, counted from 0."""
    return jax.random.fold_in(evaluation(seed), number)


def generation(seed: int) -> jax.Array:
    """Key of items generated ahead of histories."""
    return _stream(seed, 4)


def uniform_items(seed: int) -> np.random.Generator:
    """Items of the catalogue put ahead of histories."""
    return np.random.default_rng([seed, 0])


def resampled_items(seed: int) -> np.random.Generator:
    """Items of a history put ahead of it."""
    return np.random.default_rng([seed, 1])


def candidates(seed: int) -> np.random.Generator:
    """Items that an answer is ranked among."""
    return np.random.default_rng([seed, 2])


def shuffles(seed: int, number: int) -> np.random.Generator:
    """One of several random orders of histories, counted from 0."""
    return np.random.default_rng([seed, 3, number])


def strangers(seed: int) -> np.random.Generator:
    """Whose x_0 a network is shown in place of its own."""
    return np.random.default_rng([seed, 4])


def _stream(seed: int | jax.Array, number: int) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), number)
