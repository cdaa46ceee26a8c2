"""The commands, a module each: what it takes (`ACCEPTS`), and `run(argv)`, its exit code."""

COMMANDS = (
    "train",
    "evaluate",
    "recommend",
    "compare",
    "leaderboard",
    "report",
    "export",
    "augment",
    "convert",
    "tune",
    "launch",
    "completion",
)
