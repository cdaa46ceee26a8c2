"""`bin/launch`: two processes give the figures of one, and what ends one ends both.

The death tests and the equality of every kind of system are slow: each starts whole commands.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec_diff.commands import launch
from tests import processes

ROOT = Path(__file__).parents[2]

SMALL = [
    "--data.synthetic.num-users=120", "--data.synthetic.num-items=60", "--data.max-len=6",
    "--data.synthetic.num-interests=4", "--train.batch-size=64",
    "--train.patience=0", "--eval.batch-size=256",
]  # fmt: skip
MODELS = {
    "mf": ["--model.width=16"],  # two processes cut their shares, one keeps all on its devices
    "dimerec": ["--model.width=16", "--model.num-steps=5"],
    "sasrec": ["--model.width=16"],
    "diffrec": ["--model.dims=16", "--data.resident=true"],
    "ldiffrec": [
        "--backbone.train.num-epochs=2",
        "--backbone.train.batch-size=64",
        "--model.encoder-dims=16",
        "--model.denoiser-dims=16",
    ],
}


def command(*words, devices=1):
    environment = processes.environment(devices) | {"JAXREC_REPORT": "0", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "jaxrec_diff.cli", *words], env=environment, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def done(process, seconds=500):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out


def together(*words, processes=2, devices=2):
    return command(
        "launch", f"--processes={processes}", f"--devices-per-process={devices}", "--", *words
    )


def train(model, workdir, *more, epochs=3):
    given = [f"--model={model}", f"--workdir={workdir}", f"--train.num-epochs={epochs}"]
    return ["train", *given, *SMALL, *MODELS[model], *more]


def figures(workdir):
    results = json.loads((workdir / "results.json").read_text())
    logs = sorted(workdir.rglob("metrics.jsonl"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    return results, lines


# Of trained arrays themselves, which agree up to the order in which gradients are added up. All
# else counts what is in lists.
ROUNDED = ("item_spread", "item_norm_trained", "item_norm_untrained")


def assert_alike(one, other):
    (a, first), (b, second) = figures(one), figures(other)
    assert a["protocols"].keys() == b["protocols"].keys()
    for mine, others in zip(
        (a, *a["protocols"].values()), (b, *b["protocols"].values()), strict=True
    ):
        for name in ROUNDED:
            value = mine["diagnostics"].pop(name, 0.0)
            assert value == pytest.approx(others["diagnostics"].pop(name, 0.0), rel=1e-6)
    for key in (
        "metrics", "best_valid", "best_step", "steps", "controls", "groups", "diagnostics",
        "protocols", "optimum", "num_users",
    ):  # fmt: skip
        assert a[key] == b[key], key
    assert len(first) == len(second)
    for line, again in zip(first, second, strict=True):
        assert line["step"] == again["step"]
        assert abs(line["loss"] - again["loss"]) <= 1e-6 * max(1, abs(line["loss"]))
        for name in line:
            if name.startswith("valid/"):
                assert line[name] == again[name], name


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_two_processes_give_the_figures_of_one(model, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = done(command(*train(model, one), devices=4))
    both = done(together(*train(model, two)))
    assert_alike(one, two)
    assert both.replace(str(two), str(one)).count("epoch") == alone.count("epoch")
    for split in ("valid", "test"):
        paths = [path / f"{split}.json" for path in (one, two)]
        done(command("evaluate", f"--workdir={one}", f"--split={split}", f"--output={paths[0]}"))
        done(together("evaluate", f"--workdir={one}", f"--split={split}", f"--output={paths[1]}"))
        a, b = (json.loads(path.read_text()) for path in paths)
        for key in ("metrics", "controls", "diagnostics", "spread", "optimum"):
            assert a[key] == b[key], key  # to the last bit, of one and the same arrays
    done(command("recommend", f"--workdir={two}", f"--output={one}/top.csv", "--k=5"))
    done(together("recommend", f"--workdir={two}", f"--output={two}/top.csv", "--k=5"))
    tops = [(path / "top.csv").read_text().splitlines() for path in (one, two)]
    for a, b in zip(*tops, strict=True):
        assert a.split(",")[:2] == b.split(",")[:2]
    done(together("export", f"--workdir={two}", f"--output={two}/serving"))
    assert (two / "serving" / "model.stablehlo").stat().st_size > 1000


def children(process):
    """The processes of a launch, by their numbers."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[1]
        except OSError:
            continue
        ours = [word for word in words if word.startswith("--distributed.process-id=")]
        if ours and int(parent) == process.pid:
            found[int(ours[0].partition("=")[2])] = int(folder.name)
    return found


LONG = 12  # epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done(command(*train("dimerec", workdir, epochs=LONG), devices=4))
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP", "SIGTERM"])
def test_what_ends_one_ends_both_and_others_go_on(name, victim, whole, tmp_path):
    workdir, number = tmp_path / "run", signal.Signals[name]
    process = together(*train("dimerec", workdir, epochs=LONG))
    log, until = workdir / "metrics.jsonl", time.monotonic() + 300
    while not log.exists() or log.read_text().count("\n") < 2:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    found = children(process)
    os.kill(found[victim], number)
    start = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 30
    assert process.returncode == 128 + number
    (said,) = err.strip().splitlines()
    if name == "SIGTERM":
        assert said.startswith("stopped by SIGTERM; the same command goes on")
    else:
        assert f"process {victim} was " in said and name in said
    assert not any(Path(f"/proc/{pid}").exists() for pid in found.values())
    devices = {0: 1, 1: 4}[victim]  # another number of processes, and of devices
    done(command(*train("dimerec", workdir, epochs=LONG), devices=devices))
    assert_alike(whole, workdir)


@pytest.mark.slow
def test_one_process_is_continued_by_two_on_another_mesh(whole, tmp_path):
    workdir = tmp_path / "run"
    process = command(*train("dimerec", workdir, epochs=LONG), devices=1)
    log = workdir / "metrics.jsonl"
    while not log.exists() or log.read_text().count("\n") < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    done(together(*train("dimerec", workdir, "--mesh=data:2,model:2", epochs=LONG)))
    assert_alike(whole, workdir)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_an_exception_on_one_ends_both(victim, tmp_path):
    """The one whose data cannot be read finds out when the other waits for it."""
    port = processes.free_port()
    started = []
    for number in range(2):
        data = "missing.csv" if number == victim else "synthetic"
        flags = [f"--distributed.coordinator=127.0.0.1:{port}", "--distributed.num-processes=2"]
        flags += [f"--distributed.process-id={number}", f"--data={data}"]
        started.append(command(*train("dimerec", tmp_path / "run", *flags)))
    start = time.monotonic()
    said = [process.communicate(timeout=60)[1].strip() for process in started]
    assert time.monotonic() - start < 60
    assert started[victim].returncode == 2 and "missing.csv" in said[victim]
    assert started[1 - victim].returncode == 75
    (line,) = said[1 - victim].splitlines()
    assert line.startswith("error: ") and "process" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_processes_that_were_not_started_alike_are_refused(tmp_path):
    port = processes.free_port()
    started = [
        command(*train("dimerec", tmp_path / "run"), f"--seed={number}",
                f"--distributed.coordinator=127.0.0.1:{port}", "--distributed.num-processes=2",
                f"--distributed.process-id={number}")
        for number in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=120)[1].strip() for process in started]
    assert [process.returncode for process in started] == [2, 2]
    want = "error: process 1 was started with seed: 1, process 0 with 0; start all processes alike"
    assert said == [want, want]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected -- and one of train, evaluate, recommend, export, got nothing"),
        (["--", "tune"], "got tune"),
        (["--", "train", "--distributed.timeout=3"], "sets the --distributed flags itself"),
        (["--size=3", "--", "train"], "unknown flag --size=3"),
    ],
)
def test_what_cannot_be_started_is_refused(words, said, capsys):
    assert launch.run(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "two"])
def test_a_number_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="whole number of at least"):
        launch.run([f"--processes={text}", "--", "train"])
