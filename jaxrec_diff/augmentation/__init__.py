"""Items put ahead of short sequences: by a generator, by simple rules, and what they are worth."""
