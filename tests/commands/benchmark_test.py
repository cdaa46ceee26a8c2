"""`bin/benchmark`: figures where they are asked for, and one sentence where they cannot be."""

import json

import pytest

from jaxrec_diff import cli
from jaxrec_diff.benchmarking import asks, peers, program
from jaxrec_diff.commands import benchmark

pytest.importorskip("matplotlib")

TINY = [
    "--shape=users:40,items:30,len:6", "--batches=4", "--devices=1", "--repeats=1",
    "--model.width=8", "--model.num-steps=4", "--model.sampler.kind=ddpm",
]  # fmt: skip


def test_points_go_to_the_terminal_and_to_a_folder_that_takes_more(tmp_path, capsys):
    output = tmp_path / "measured"
    asked = ["benchmark", "sampler", "--model=dreamrec", *TINY, f"--output={output}"]
    assert cli.main([*asked, "--steps=2,4"]) == 0
    said = capsys.readouterr()
    assert "sampler: " in said.out and "compile s" in said.out
    assert "dreamrec sampler ddpm 4 steps, batch 4: " in said.err
    lines = [json.loads(line) for line in (output / "sampler.jsonl").read_text().splitlines()]
    assert [(line["way"], line["steps"]) for line in lines] == [("ours", 2), ("ours", 4)]
    assert all(
        line["command"].startswith("bin/benchmark sampler --model=dreamrec") for line in lines
    )
    for plot in ("rate-steps", "seconds-steps", "memory-steps", "roofline"):
        assert (output / f"sampler-{plot}.svg").read_text().startswith("<svg")
        assert (output / f"sampler-{plot}.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*asked, "--json", "--peer=loop"]) == 0
    said = capsys.readouterr()
    ways = [json.loads(line)["way"] for line in said.out.splitlines()]
    assert ways == ["ours", "loop"] and "compile s" in said.err
    assert len((output / "sampler.jsonl").read_text().splitlines()) == 4


def test_the_shell_completes_every_question():
    assert benchmark.ACCEPTS.words == asks.QUESTIONS
    assert benchmark.ACCEPTS.values["peer"] == peers.PEERS
    assert set(benchmark.ACCEPTS.values["lower"]) == set(program.PLATFORMS)


def test_quiet_says_nothing(capsys):
    assert cli.main(["benchmark", "rank", "--model=mf", *TINY[:4], "--quiet"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_system_without_a_reverse_process_answers_in_one_sentence(capsys):
    tiny = [flag for flag in TINY if not flag.startswith("--model.")]
    assert cli.main(["benchmark", "sampler", "--model=mf", *tiny]) == 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("mf has no reverse process")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "ask one thing"),
        (["sampler", "train"], "ask one thing"),
        (["samplers"], "takes no 'samplers'; did you mean sampler?"),
        (["sampler", "--model=dreamrek"], "did you mean dreamrec?"),
        (["sampler", "--sampler=dim"], "did you mean ddim?"),
        (["sampler", "--peer=lop"], "did you mean loop?"),
        (["sampler", "--lower=gpu"], "--lower takes no 'gpu'"),
        (["sampler", "--lower=tpu", "--peer=loop"], "takes no --peer"),
        (["train", "--steps=5"], "--steps changes nothing in bin/benchmark train"),
        (["train", "--peer=loop"], "walks a sampler"),
        (["evaluate", "--peer=loop"], "--peer changes nothing in bin/benchmark evaluate"),
        (["memory", "--lower=tpu"], "--lower changes nothing in bin/benchmark memory"),
        (["rank", "--batches=10,x"], "--batches takes whole numbers from 1"),
        (["rank", "--steps=0"], "--steps takes whole numbers from 1"),
        (["rank", "--repeats=0"], "--repeats must be a whole number of at least 1"),
        (["rank", "--shape=users:5,items:no"], "--shape takes users:N"),
        (["rank", "--shape=users:5", "--data=x.csv"], "give one of them"),
        (["rank", "--model=mf", "--shape=users:1"], "users:2 at least"),
        (
            ["rank", "--model=mf", "--shape=users:9", "--model.widht=8"],
            "did you mean --model.width?",
        ),
        (["rank", "--model=mf", "--data=nowhere.csv"], "nowhere.csv does not exist"),
        (["rank", "--model=mf", "--steps=4"], "mf has no reverse process"),
        (["rank", "--model=mf", "--devices=4096", "--shape=users:9"], "at most"),
        (["sampler", "--model=sasrec", "--peer=torch"], "sasrec has no reverse process"),
        (["sampler", "--model=flow", "--peer=torch", *TINY[:4]], "has no PyTorch port"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(words, sentence, capsys, tmp_path):
    code = cli.main(["benchmark", *words, f"--output={tmp_path / 'none'}"])
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert sentence in said.err
    without = "no reverse process" in said.err
    assert code == (0 if without else 2) and said.err.startswith("error: ") != without
    assert not (tmp_path / "none" / f"{(words or ['sampler'])[0]}.jsonl").exists()
