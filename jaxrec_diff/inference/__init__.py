"""A trained model asked by users: lists for histories, and programs that serve elsewhere."""
