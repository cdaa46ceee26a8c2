"""Recommenders without a network: linear weights between items, and matrix factors.

Each is a function from training rows (`ops.graph.Rows`) to a `scores.Score`. All run on the host,
in memory that does not grow with users times items.
"""
