"""What a model sees, cut on the fly from flat arrays of items: a file a kind of input."""
