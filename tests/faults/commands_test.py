"""Malformed files and odd questions through the commands: a sentence, and nothing left behind."""

import random
from pathlib import Path

import pytest

from tests.data import written
from tests.faults import harness, inputs, jobs
from tests.faults.damage import damaged


def outcome_of(ended: harness.Ended, folder: Path, made: tuple[str, ...]) -> str:
    """How a command went that may refuse: what it refuses leaves nothing behind."""
    if ended.hung:
        return "hangs"
    if ended.traceback:
        return "tracebacks"
    if ended.code == 0:
        whole = [(folder / name).exists() for name in made]
        return "held" if all(whole) else "lost"
    strays = [p for p in folder.iterdir() if p.name.startswith(made) and made]
    return "held" if ended.refused and not strays else "lost"


def damaged_files(command: str, base: Path, counted: harness.Tally, count: int) -> int:
    """Tables of every format, damaged, as `--data` of a command; how many could be used."""
    used = 0
    draw = random.Random(f"{harness.SEED} {command} of damaged files")
    names = list(written.WRITERS)
    for number in range(count):
        folder = harness.fresh(base / "here")
        name = names[number % len(names)]
        path = folder / name
        written.WRITERS[name](inputs.known_tables(draw), path)
        path.write_bytes(damaged(path.read_bytes(), draw))
        data = f"--data={written.source_of(path)}"
        if command == "convert":
            made = draw.choice(("out.parquet", "out.csv", "tfds/out"))
            target = f"tfds:{folder / made}" if made.startswith("tfds") else folder / made
            argv = ["convert", data, f"--output={target}"]
        else:
            made = "run"
            argv = ["train", "--model=mf", data, f"--workdir={folder / made}", "--devices=1",
                    "--train.num-epochs=1", "--model.width=8", "--train.batch-size=8"]  # fmt: skip
        ended = harness.run(argv, folder)
        outcome = outcome_of(ended, folder, (made,))
        counted.add(outcome, f"{command}, input {number}, {name}", ended.said)
        used += ended.code == 0
    return used


def damaged_questions(base: Path, counted: harness.Tally, count: int) -> int:
    """Damaged files of histories and of users; how many could be used."""
    used = 0
    draw = random.Random(f"{harness.SEED} damaged questions")
    done = jobs.undisturbed("train mf", base)
    for number in range(count):
        folder = jobs.place(base, done.folder)
        size = draw.randint(1, 6)
        names = [f"u{n:03d}" for n in range(size)]
        lists = [[f"i{draw.randrange(24):02d}" for _ in range(draw.randint(1, 5))] for _ in names]
        if draw.random() < 0.8:
            path, _ = inputs.write_histories(names, lists, folder, draw)
            flag = "--histories"
        else:
            path, flag = folder / "users.txt", "--users"
            path.write_text("\n".join(names))
        path.write_bytes(damaged(path.read_bytes(), draw))
        made = draw.choice(("top.parquet", "top.csv", "top.jsonl"))
        argv = ["recommend", f"--workdir={folder / 'run'}", f"{flag}={path}"]
        ended = harness.run([*argv, f"--output={folder / made}"], folder)
        outcome = outcome_of(ended, folder, (made,))
        counted.add(outcome, f"recommend, input {number}, {path.name}", ended.said)
        used += ended.code == 0
    return used


_NUMBERS = (
    "0",
    "-1",
    "1",
    "7",
    "1000000000",
    "9" * 30,
    "1e3",
    "1.5",
    "",
    " ",
    "x",
    "٣",
    "+5",
    "007",
)
_IDS = ("i01", "i01,i02", "", ",", ",,i01,", "nobody", "i01,nobody", "=1+1", '"i01"', "i01;i02",
        "日本", "i01," * 2000, "[i01]", " i01 , i02 ", "-1", "x" * 100_000)  # fmt: skip


def odd_questions(base: Path, counted: harness.Tally, count: int) -> int:
    """Histories, numbers and places that nobody should ask for; how many got an answer."""
    answered = 0
    draw = random.Random(f"{harness.SEED} odd questions")
    done = jobs.undisturbed("train mf", base)
    for _ in range(count):
        folder = jobs.place(base, done.folder)
        (folder / "file").write_text("x")
        argv = ["recommend", f"--workdir={folder / 'run'}"]
        made: tuple[str, ...] = ()
        if draw.random() < 0.6:
            argv.append(f"--history={draw.choice(_IDS)}")
        else:
            name = draw.choice(
                ("top.csv", "a/b/top.parquet", "file/top.csv", "run", "x" * 300 + ".csv", "top.xls")
            )
            argv.append(f"--output={folder / name}")
        for flag in draw.sample(
            ("--k", "--seeds", "--batch-size", "--sampler-steps", "--seed"), draw.randint(0, 2)
        ):
            argv.append(f"{flag}={draw.choice(_NUMBERS)}")
        ended = harness.run(argv, folder)
        outcome = outcome_of(ended, folder, made)
        if list(folder.rglob("*.partial*")):
            outcome = "lost"
        shown = " ".join(word[:80] for word in argv)
        counted.add(outcome, shown, ended.said)
        answered += ended.code == 0
    return answered


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("command, count", [("convert", 240), ("train", 21)])
def test_damaged_files(command, count, base):
    with harness.tally(f"inputs: {command}") as counted:
        used = damaged_files(command, base, counted, count)
    assert count / 20 < used < count


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_damaged_questions(base):
    with harness.tally("inputs: recommend") as counted:
        used = damaged_questions(base, counted, 80)
    assert 4 < used < 80


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_odd_questions(base):
    with harness.tally("inputs: odd questions") as counted:
        answered = odd_questions(base, counted, 60)
    assert 3 < answered < 60
