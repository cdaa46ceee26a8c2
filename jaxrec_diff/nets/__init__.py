"""Flax modules: the networks that the models wire together."""
