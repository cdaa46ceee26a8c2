"""Wrong uses of the commands: one sentence, exit code 2, the nearest right thing, no raw Python."""

import re

import pytest

from jaxrec_diff import cli

_RAW = re.compile(r"np\.|Errno|could not convert|invalid literal|Config\b|Error\b|<class|Traceback")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("train --model=dreamrec --preset=zhiuh", "did you mean zhihu?"),
        ("train dimerec", "did you mean --model=dimerec?"),
        ("tune dimrec", "did you mean --model=dimerec?"),
        ("train qqqq", "name a model: --model=NAME"),
        ("train --model=dimrec", "did you mean dimerec?"),
        ("train --model=sasrec --model.num-steps=3", "not of this model"),
        ("train --model=sasrec --lr=3", "did you mean --train.learning-rate?"),
        ("train --model=sasrec --train.batch-size=ten", "it is a whole number"),
        ("train --model=sasrec --train.learning-rate=fast", "it is a number"),
        ("train --model=sasrec --backbone=mf", "this model starts from no other"),
        ("train --model=sasrec --data=nosuch.csv", "nosuch.csv does not exist"),
        ("train --model=mf --workdir=WORKDIR", "holds a run of dimerec, not of mf"),
        ("evaluate --workdir=WORKDIRs", "did you mean WORKDIR?"),
        ("recommend --workdir=nosuch", "nosuch does not exist"),
        ("recommend --workdir=WORKDIR --history=1 --k=many", "whole number of at least 1"),
        ("recommend --workdir=WORKDIR --history=1 --sampler=dpm", "ddpm"),
        ("evaluate --workdir=WORKDIR --sampler=fast --sampler-steps=3", "its own number of steps"),
        ("compare nosuch WORKDIR", "nosuch does not exist"),
        ("train --model=mf --preset=nosuch.json", "nosuch.json does not exist"),
        ("evaluate --workdir=WORKDIR --seeds=x", "it is a whole number"),
    ],
)
def test_a_wrong_use_is_one_sentence(workdir, capsys, argv, said):
    words = argv.replace("WORKDIR", str(workdir)).split()
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said.replace("WORKDIR", str(workdir)) in err
    assert not _RAW.search(err), err
