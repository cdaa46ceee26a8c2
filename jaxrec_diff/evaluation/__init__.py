"""Ranking a split and judging the lists: metrics, diagnostics, baselines."""
