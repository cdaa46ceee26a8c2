"""Wrong uses of the commands: one sentence, exit code 2, the nearest right thing, no raw Python."""

import re

import pytest

from jaxrec_diff import cli
from jaxrec_diff.commands import evaluate, terminal

_RAW = re.compile(r"np\.|Errno|could not convert|invalid literal|Config\b|Error\b|<class|Traceback")


def test_a_field_is_no_misspelt_flag():
    flags = terminal.split_flags(["--seed=3", "--seeds=2"], evaluate.ACCEPTS)
    assert flags.dotted == ["--seed=3"] and flags.bare == {"seeds": "2"}


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
        ("train --model=", "unknown model ''; there are adrec"),
        ("train --modle=dimerec", "did you mean --model?"),
        ("train --model=dimerec --model=sasrec", "--model is given twice"),
        ("train --model=dimerec --quite", "did you mean --quiet?"),
        ("train --model=dimerec --quiet=5", "is a switch and takes no value"),
        ("train --model=dimerec -x", "expected a flag such as"),
        ("train --model=sasrec --model.wdith=8", "did you mean --model.width?"),
        ("train --model=sasrec --model.width=0", "the nearest is 1"),
        ("train --model=sasrec --model.num-heads=3", "the nearest is 63"),
        ("train --model=sasrec --train.batch-size=0", "at least 1, got 0"),
        ("train --model=sasrec --train.num-epochs=-1", "at least 1, got -1"),
        ("train --model=sasrec --train.optimizer=addam", "it is one of adam, adamw"),
        ("train --model=sasrec --train.learning-rate=-1", "must be above 0 (say 0.001)"),
        ("train --model=sasrec --train.learning-rate=nan", "must be a finite number"),
        ("train --model=sasrec --eval.metric=hr@7", "did you mean 'hr@5'?"),
        ("train --model=sasrec --eval.metric=hr10", "did you mean 'hr@10'?"),
        ("train --model=sasrec --eval.ks=5,x", "it is whole numbers"),
        ("train --model=sasrec --eval.protocol=honst", "it is one of honest, official"),
        ("train --model=sasrec --eval.controls=eas", "each one of item_knn"),
        ("train --model=sasrec --data.split=loo", "it is one of leave_one_out, ratio"),
        ("train --model=sasrec --data=tfds:nowhere", "is no prepared TFDS directory"),
        ("train --model=sasrec --data=sqlite:no.db", "no.db does not exist"),
        ("train --model=dimerec --model.sampler.kind=ddmi", "it is one of ddpm, mean, ddim"),
        ("train --model=dimerec --model.num-steps=0", "at least 1, got 0"),
        ("train --model=dimerec --model.num-steps=2.5", "it is a whole number"),
        ("train --model=dimerec --model.score=cosine", "it is one of ip, cos"),
        ("train --model=dimerec --model.temperature=hot", "it is a number"),
        ("train --model=dimerec --eval.track-test=yes", "it is true or false"),
        ("train --model=dimerec --seed=-1", "seed must be at least 0"),
        ("train --model=dimerec --devices=1000", "devices=1000 asked for, but JAX sees"),
        ("train --model=ddrm --backbone=mff", "did you mean mf?"),
        ("train --model=ddrm --backbone=no.npz", "no.npz does not exist"),
        ("evaluate", "name a trained workdir: --workdir=DIR"),
        ("evaluate --workdir=WORKDIR --split=tst", "valid or test, got 'tst'"),
        ("evaluate --workdir=WORKDIR --splt=test", "did you mean --split?"),
        ("evaluate --workdir=WORKDIR --sampler-steps=99", "the nearest valid value is 4"),
        ("evaluate --workdir=WORKDIR --seeds=0", "at least 1, got 0"),
        ("evaluate --workdir=WORKDIR --protocol=offical", "it is one of honest, official"),
        ("evaluate --workdir=WORKDIR --train.num-epochs=3", "bin/train takes it"),
        ("evaluate --workdir=WORKDIR --per-user", "--per-user needs a value"),
        ("recommend --workdir=WORKDIR", "name a file for the lists: --output="),
        ("recommend --workdir=WORKDIR --user=1", "did you mean --users?"),
        ("recommend --workdir=WORKDIR --history=1 --k=0", "at least 1, got '0'"),
        ("recommend --workdir=WORKDIR --history=1 --output=a.xls", "must end in .parquet"),
        ("compare", "name finished workdirs: bin/compare DIR"),
        ("compare WORKDIR WORKDIR", "the same run as another: seed 0 twice"),
        ("compare WORKDIR --metric=ndgc@10", "did you mean 'ndcg@10'?"),
        ("compare WORKDIR --resamples=5", "at least 100, got '5'"),
        ("report --workdir=WORKDIR --foo=1", "unknown flag --foo=1"),
        ("export --workdir=WORKDIR", "name a folder for the program: --output="),
        ("augment --workdir=WORKDIR --output=x.parquet", "which generates no items"),
        ("convert --data=clicks.csv", "--output is missing"),
        ("convert --output=x.csv", "--data is missing"),
        ("tune --model=dimerec --trials=0", "at least 1, got '0'"),
        ("serve --workdir=nosuch", "nosuch does not exist"),
        ("docs --port=99999", "at most 65,535, got 99999"),
        ("trian --model=dimerec", "expected one of train, evaluate"),
    ],
)
def test_a_wrong_use_is_one_sentence(workdir, capsys, argv, said):
    words = argv.replace("WORKDIR", str(workdir)).split()
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert said.replace("WORKDIR", str(workdir)) in err
    assert not _RAW.search(err), err
