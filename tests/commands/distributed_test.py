"""Flags that tell a process of others, and what JAX says of lost ones."""

import pytest

from jaxrec_diff.commands import distributed

THREE = [
    "--distributed.coordinator=10.0.0.1:1234",
    "--distributed.num-processes=2",
    "--distributed.process-id=1",
]


@pytest.fixture(autouse=True)
def by_itself(monkeypatch):
    monkeypatch.setattr(distributed, "detected", lambda: False)


def test_flags_are_taken_from_the_command():
    words = ["train", "--model=mf", *THREE, "--seed", "3"]
    cluster, rest = distributed.split(words)
    assert rest == ["train", "--model=mf", "--seed", "3"]
    assert cluster == distributed.Cluster("10.0.0.1:1234", 2, 1)
    apart = ["train", "--distributed.process_id", "0", *THREE[:2], "--distributed.timeout=9"]
    assert distributed.split(apart) == (distributed.Cluster("10.0.0.1:1234", 2, 0, 9), ["train"])


def test_without_flags_a_command_runs_by_itself():
    assert distributed.split(["train", "--model=mf"]) == (None, ["train", "--model=mf"])
    one = ["--distributed.num-processes=1", "--distributed.process-id=0"]
    assert distributed.split(["train", THREE[0], *one]) == (None, ["train"])


def test_what_was_started_by_others_is_detected_unless_it_must_not(monkeypatch):
    monkeypatch.setattr(distributed, "detected", lambda: True)
    monkeypatch.setenv("SLURM_PROCID", "3")
    assert distributed.split(["train"])[0] == distributed.Cluster("", 0, 3)
    for words in (["train", "--distributed.detect=false"], ["train", "--help"], ["tune"]):
        assert distributed.split(words)[0] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", *THREE[:2]], "process-id is missing"),
        (["train", *THREE[1:]], "coordinator is missing"),
        (["train", *THREE, THREE[0]], "given twice"),
        (["tune", *THREE], "bin/tune runs in one process"),
        (["train", "--distributed.coordinater=a:1"], "unknown flag --distributed.coordinater"),
        (["train", "--distributed.coordinator"], "needs a value"),
        (["train", "--distributed.coordinator=host", *THREE[1:]], "HOST:PORT, got 'host'"),
        (["train", "--distributed.coordinator=host:0", *THREE[1:]], "HOST:PORT"),
        (["train", *THREE[:2], "--distributed.process-id=2"], "process-id=2 is none of 2"),
        (["train", *THREE[:2], "--distributed.process-id=x"], "whole number of at least 0"),
        (["train", *THREE, "--distributed.timeout=0"], "whole number of at least 1, got '0'"),
        (["train", "--distributed.detect=no"], "true or false, got 'no'"),
    ],
)
def test_flags_that_cannot_be_used_are_refused(words, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        distributed.split(words)


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),  # a batch script, not a task
        ({f"SLURM_{n}": "2" for n in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")},
         True),
        ({f"SLURM_{n}": "1" for n in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")},
         False),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1", "OMPI_COMM_WORLD_SIZE": "1"}, False),
    ],
)  # fmt: skip
def test_schedulers_are_known_by_their_variables(variables, several, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no TPU
    assert distributed.detected(variables) is several


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("DEADLINE_EXCEEDED: Deadline\n\nRPC: /xla.CoordinationService/RegisterTask", "in time"),
        ("unhealthy (stopped sending heartbeats):\n1\nThe tasks", "process 1 stopped answering"),
        ("Barrier failed because: task is set to ERROR: UNAVAILABLE: Task 3 heartbeat timeout",
         "process 3 stopped answering"),
        ("Gloo all-reduce failed: Connection closed by peer [127.0.0.1]:4", "process is gone"),
        ("the loss was not finite at step 3", None),
    ],
)  # fmt: skip
def test_what_jax_says_of_lost_processes_is_understood(text, why):
    found = distributed.reason(text)
    assert found is None if why is None else why in found
