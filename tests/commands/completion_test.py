"""Completion: what bash and zsh answer at a place in a line."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxrec_diff import cli, config
from jaxrec_diff.commands import completion

ROOT = Path(__file__).parents[2]
SHELLS = [name for name in ("bash", "zsh") if shutil.which(name)]

pytestmark = pytest.mark.skipif("bash" not in SHELLS, reason="needs bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "completion.sh"
    path.write_text(completion.script(ROOT / "bin"))
    return path


def ask(script, lines, cwd, shell="bash"):
    """The words that a shell's function offers for each line, the cursor at its end."""
    asked = "\n".join(
        f"COMP_LINE='{line}' COMP_POINT={len(line)}; _jaxrec; answer" for line in lines
    )
    answer = 'answer() { printf "%s\\n" "#" "${COMPREPLY[@]}"; }'
    quiet = {"bash": ["--norc"], "zsh": ["-f"]}[shell]
    run = subprocess.run(
        [shell, *quiet, "-c", f"source {script}\n{answer}\n{asked}"],
        cwd=cwd, env=os.environ | {"ZDOTDIR": str(script.parent)},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stderr == ""
    answers = run.stdout.split("#\n")[1:]
    return [[word for word in answer.split("\n") if word] for answer in answers]


@pytest.mark.parametrize("shell", SHELLS)
def test_words_at_the_cursor(script, tmp_path, shell):
    (tmp_path / "runs/mine").mkdir(parents=True)
    (tmp_path / "runs/mine/config.json").write_text('{\n "preset": "mf",\n "seed": 0\n}\n')
    (tmp_path / "my clicks.csv").touch()
    wanted = {
        "bin/train --mode": ["--model="],
        "bin/train --model=dimerec": ["dimerec ", "dimerec_tuned "],
        "bin/tune --tri": ["--trials="],
        "bin/train --tri": [],
        "./bin/train --model=mf --model.": [
            "--model.width=", "--model.l2=", "--model.negatives=", "--model.init-scale=",
        ],
        "/somewhere/bin/evaluate --workdir=runs/mine --model.w": ["--model.width="],
        "bin/evaluate --split=": ["valid ", "test "],
        "bin/evaluate --quiet --js": ["--json "],
        "bin/evaluate --sampler=fa": ["fast "],
        "bin/train --model=dreamrec --model.schedule=c": ["cosine_clip "],
        "bin/train --model=diffurec --model.schedule=cosine_c": [],
        "bin/train --train.optimizer=adam": ["adam ", "adamw ", "adam_l2 "],
        "bin/train --log.tensorboard=t": ["true "],
        "bin/convert --d": ["--data=", "--data."],
        "bin/convert --train.": [],
        "bin/compare ru": ["runs/"],
        "bin/benchmark sa": ["sampler "],
        "bin/benchmark rank --peer=tor": ["torch ", "torch-compile "],
        "bin/train --data=my": ["my\\ clicks.csv "],
        "bin/report --workdir=runs/m": ["runs/mine/"],
    }  # fmt: skip
    for line, found in zip(wanted, ask(script, wanted, tmp_path, shell), strict=True):
        if shell == "zsh" and "=" in line.rsplit(" ", 1)[-1]:  # where "=" does not part words
            name = line.rsplit(" ", 1)[-1].split("=")[0] + "="
            assert all(word.startswith(name) for word in found)
            found = [word.removeprefix(name) for word in found]
        assert found == wanted[line], line


@pytest.mark.parametrize("name", ["dimerec", "ddrm", "diffrec"])
def test_every_flag_that_the_parser_takes_is_offered(script, tmp_path, name):
    experiment = config.preset(name, "synthetic").experiment
    flags = config.flag_names(experiment)
    sections = sorted({flag.split(".")[0] for flag in flags if "." in flag})
    lines = [f"bin/train --model={name} --{section}." for section in sections]
    offered = [word for answer in ask(script, lines, tmp_path) for word in answer]
    assert sorted(offered) == sorted(f"--{flag}=" for flag in flags if "." in flag)
    words = config.flag_words(experiment)
    for flag in ("train.optimizer", "eval.protocol", "log.tensorboard"):
        for word in words[flag]:
            config.parse(experiment, [f"--{flag}={word}"])


def test_every_command_is_completed_and_explains_its_flags(script, capsys):
    registered = subprocess.run(
        ["bash", "--norc", "-c", f"source {script}; complete -p"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for command, accepts in completion.commands().items():
        assert f"-F _jaxrec bin/{command}\n" in registered
        assert f"-F _jaxrec {ROOT}/bin/{command}\n" in registered
        assert cli.main([command, "--help"]) == 0
        said = capsys.readouterr().out
        for flag in (*accepts.values, *accepts.switches):
            assert f"--{flag}" in said, (command, flag)
