"""Diffusion recommenders in JAX."""
