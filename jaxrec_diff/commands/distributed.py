"""Several processes of one command: what tells each of the others, how it joins and leaves them."""

import importlib.util
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

SEVERAL = ("train", "evaluate", "recommend", "export")
"""Commands that run as several processes."""

LOST = 75
"""Exit code of a process that lost another one."""

USAGE = """\
Several hosts, or several processes on one: the same command for each, with
--distributed.coordinator=HOST:PORT (of process 0) --distributed.num-processes=N
--distributed.process-id=I. TPU pods, SLURM and Open MPI need none of them;
--distributed.detect=false keeps their processes apart. A process waits
--distributed.timeout=120 seconds for the others."""

# A peer that says nothing for so long is gone. Python's own threads need not run for a heartbeat.
_HEARTBEAT_SECONDS = 10
_WATCHED = "JAXREC_WATCHED"  # the two files of a process under `watch`: its lifeline, its stderr


class Cluster(NamedTuple):
    """The processes of a command, as one of them sees them."""

    coordinator: str  # HOST:PORT of the first; "" where JAX finds it out
    num_processes: int  # 0 where JAX finds it out
    process_id: int
    seconds: int = 120  # to wait for the others


def split(argv: list[str]) -> tuple[Cluster | None, list[str]]:
    """Takes the flags of this module from a command's words.

    Raises:
      ValueError: on flags that are unknown, cannot be used or lack one that goes with them.
    """
    given: dict[str, str] = {}
    rest, words = [], list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--distributed."):
            rest.append(word)
            continue
        name, equals, value = word.removeprefix("--distributed.").partition("=")
        name = name.replace("_", "-")
        if not equals:
            if not words or words[0].startswith("--"):
                raise ValueError(f"--distributed.{name} needs a value: --distributed.{name}=VALUE")
            value = words.pop(0)
        if name in given:
            raise ValueError(f"--distributed.{name} is given twice; give it once")
        given[name] = value
    return _cluster(given, rest), rest


def _cluster(given: Mapping[str, str], words: list[str]) -> Cluster | None:
    together = ("coordinator", "num-processes", "process-id")
    for name in given.keys() - {*together, "timeout", "detect"}:
        raise ValueError(
            f"unknown flag --distributed.{name}; there are --distributed."
            + ", --distributed.".join((*together, "timeout", "detect"))
        )
    if given and words[:1] and words[0] not in SEVERAL:
        raise ValueError(f"bin/{words[0]} runs in one process; leave out --distributed flags")
    seconds = _whole(given, "timeout", 1, 120)
    if given.get("detect", "true") not in ("true", "false"):
        raise ValueError(f"--distributed.detect must be true or false, got {given['detect']!r}")
    missing = [name for name in together if name not in given]
    if len(missing) == len(together):
        asked = given.get("detect", "true") == "true" and words[:1] and words[0] in SEVERAL
        help_only = {"-h", "--help"} & set(words)
        if not asked or help_only or not detected():
            return None
        return Cluster("", 0, _count(os.environ, *_NUMBER), seconds)
    if missing:
        raise ValueError(
            f"--distributed.{missing[0]} is missing: coordinator, num-processes and process-id go "
            "together"
        )
    host, _, port = given["coordinator"].rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"--distributed.coordinator must be HOST:PORT, got {given['coordinator']!r}"
        )
    count = _whole(given, "num-processes", 1)
    number = _whole(given, "process-id", 0)
    if number >= count:
        raise ValueError(
            f"--distributed.process-id={number} is none of {count} processes; the last is "
            f"{count - 1}"
        )
    return Cluster(given["coordinator"], count, number, seconds) if count > 1 else None


def _whole(given: Mapping[str, str], name: str, low: int, default: int = 0) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or int(text) < low:
        raise ValueError(
            f"--distributed.{name} must be a whole number of at least {low}, got {text!r}"
        )
    return int(text)


def detected(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is one of several processes that SLURM, Open MPI or a TPU pod started.

    It asks what `jax.distributed.initialize` asks; on a machine by itself nothing is asked of the
    network and JAX is not imported.
    """
    if all(f"SLURM_{name}" in environment for name in _SLURM):
        return _count(environment, "SLURM_NTASKS") > 1
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return _count(environment, "OMPI_COMM_WORLD_SIZE") > 1
    if importlib.util.find_spec("libtpu") is None:
        return False
    import jax  # noqa: F401  # finds out whether this is a TPU's machine

    # What `initialize` asks; no public function says it without starting to wait for the others.
    from jax._src.clusters import cloud_tpu_cluster as tpu

    for kind in (tpu.GkeTpuCluster, tpu.GceTpuCluster):
        if kind.is_env_present():
            return kind.get_process_count() > 1
    return False


_SLURM = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
_NUMBER = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "TPU_WORKER_ID")  # of a process


def _count(environment: Mapping[str, str], *names: str) -> int:
    """The first of some variables that is a whole number, or 0."""
    texts = (environment.get(name, "") for name in names)
    return next((int(text) for text in texts if text.isdecimal()), 0)


def is_watched() -> bool:
    """Whether this process has a parent (`watch.run`) that speaks for it when it cannot."""
    return _WATCHED in os.environ


def watched_by(lifeline: int, errors: int) -> dict[str, str]:
    """What tells a process of its parent: two of its open files."""
    return {_WATCHED: f"{lifeline},{errors}"}


def take_files() -> None:
    """Writes errors to the parent's stderr, and ends with the parent.

    File 2 is left to C++, whose stack traces the parent keeps to itself.
    """
    lifeline, errors = map(int, os.environ.pop(_WATCHED).split(","))
    sys.stderr = os.fdopen(errors, "w", buffering=1, errors="backslashreplace")

    def end_with_parent() -> None:
        os.read(lifeline, 1)  # nothing is written: it returns when the parent is gone
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def join(cluster: Cluster) -> None:
    """Meets the other processes; from here on JAX has the devices of all of them.

    Raises:
      ValueError: if the coordinator's address is in use or does not answer in time.
    """
    if cluster.coordinator:
        _look_for(cluster)
    import jax

    known: dict[str, Any] = {}
    if cluster.coordinator:
        known = {"coordinator_address": cluster.coordinator}
        known |= {"num_processes": cluster.num_processes, "process_id": cluster.process_id}
    jax.distributed.initialize(
        **known,
        initialization_timeout=cluster.seconds,
        heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=_HEARTBEAT_SECONDS,
    )
    _keep_stdout(jax.process_index() == 0)


def _look_for(cluster: Cluster) -> None:
    """Asks for the coordinator by itself: JAX would abort where nobody answers."""
    host, _, port = cluster.coordinator.rpartition(":")
    address = host.strip("[]"), int(port)
    if cluster.process_id == 0:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", address[1]))
            except OSError as error:
                raise ValueError(
                    f"process 0 cannot listen at --distributed.coordinator={cluster.coordinator}: "
                    f"{error.strerror}; take another port"
                ) from None
        return
    until = time.monotonic() + cluster.seconds
    while True:
        try:
            socket.create_connection(address, timeout=2).close()
            return
        except OSError as error:
            if time.monotonic() > until:
                raise ValueError(
                    f"no coordinator answered at {cluster.coordinator} within {cluster.seconds} "
                    f"seconds ({error.strerror or error}); start process 0 there, or correct "
                    "--distributed.coordinator"
                ) from None
        time.sleep(0.2)


def _keep_stdout(speaks: bool) -> None:
    """Leaves file 1 to C++, whose talk of connections nobody reads; the first process prints on."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    sys.stdout = os.fdopen(kept if speaks else nowhere, "w", errors="backslashreplace")


def reason(text: str) -> str | None:
    """What JAX's talk of lost processes comes to, in a sentence, or None.

    >>> reason("UNAVAILABLE: Task 1 heartbeat timeout. This indicates that")
    'process 1 stopped answering'
    """
    if "RegisterTask" in text and "DEADLINE_EXCEEDED" in text:
        return "the other processes did not all come in time"
    silent = re.search(r"[Tt]ask:? ?(\d+) heartbeat timeout", text) or re.search(
        r"stopped sending heartbeats\):\s*(?:/job:\w+/replica:\d+/task:)?(\d+)", text
    )
    if silent:
        return f"process {silent[1]} stopped answering"
    if any(word in text for word in _GONE):
        return "another process is gone"
    return None


_GONE = (
    "Gloo",
    "Connection closed by peer",
    "Connection reset by peer",
    "Socket closed",
    "distributed service detected fatal errors",
    "Barrier failed because",
    "CoordinationService",
)


def part() -> None:
    """Takes leave of the other processes, once all are done."""
    import jax

    from jaxrec_diff import layout

    layout.barrier("done")
    jax.distributed.shutdown()


def leave(code: int) -> NoReturn:
    """Ends this process; what Python and JAX do at exit would wait for processes that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
