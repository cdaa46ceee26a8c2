"""A trained workdir behind HTTP: questions in batches of few shapes, and a page that asks them."""
