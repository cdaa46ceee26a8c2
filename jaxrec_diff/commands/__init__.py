"""The commands, a module each: what it takes (`ACCEPTS`), and `run(argv)`, its exit code."""

COMMANDS = {
    "train": "trains a model, to a folder with its results and its page",
    "evaluate": "a trained model under another sampler, protocol or split",
    "recommend": "top lists for known users and for new histories",
    "serve": "a trained model behind HTTP, with a page to try it",
    "compare": "a leaderboard of runs, paired over users",
    "leaderboard": "every model on one data set, trained and compared",
    "report": "the page of a run",
    "export": "a model as a program that serves without this package",
    "augment": "everybody's sequence with generated items ahead of it",
    "convert": "interactions of any format as a table or for TFDS",
    "tune": "a search for a model's settings",
    "launch": "one of these as several processes of this machine",
    "benchmark": "what systems cost: time, memory and programs, against peers",
    "docs": "the documentation as pages to be read offline",
    "completion": "what a shell needs to complete all this",
}
"""Each with what it does, in the order of their use."""
