"""Small numeric tools that know nothing of recommenders' models."""
