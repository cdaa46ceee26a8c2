"""A run from settings to results, and its evaluation afterwards; what the commands call."""
