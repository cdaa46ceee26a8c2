"""The commands beside train and evaluate, a module each with its usage and `run(argv)`."""
