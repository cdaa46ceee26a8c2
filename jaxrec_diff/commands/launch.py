"""`bin/launch`: a command as several processes of this machine."""

import os
import socket
import sys

from jaxrec_diff.commands import distributed, watch
from jaxrec_diff.commands.terminal import PLAIN, Accepts, explain, refuse, split_flags, whole

USAGE = (
    """\
usage: bin/launch --processes=N [--devices-per-process=D] -- COMMAND [FLAG ...]

  bin/launch --processes=2 -- train --model=dimerec
  bin/launch --processes=2 --devices-per-process=4 -- train --model=dimerec

Runs train, evaluate, recommend or export as N processes that share
the work and print as one. Signals reach all of them; when one dies the rest is
ended, with a sentence that says which and why, and its exit code. D is the
number of CPU devices that each makes of its cores, or of GPUs that it takes.

"""
    + distributed.USAGE
    + "\n"
)

ACCEPTS = Accepts({"processes": PLAIN, "devices-per-process": PLAIN})

# Runs what this process runs, under the name that was typed.
_PROGRAM = "import sys; sys.argv[0] = {name!r}; from jaxrec_diff.cli import script; script()"


def run(argv: list[str]) -> int:
    place = argv.index("--") if "--" in argv else len(argv)
    flags, command = split_flags(argv[:place], ACCEPTS), argv[place + 1 :]
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; bin/launch takes the command after --")
    if command[:1] == [] or command[0] not in distributed.SEVERAL:
        return refuse(
            f"expected -- and one of {', '.join(distributed.SEVERAL)}, got "
            f"{' '.join(command[:1]) or 'nothing'}: bin/launch --processes=2 -- train ..."
        )
    if any(word.startswith("--distributed.") for word in command):
        return refuse("bin/launch sets the --distributed flags itself; leave them out")
    count, devices = whole(flags, "processes", 2), whole(flags, "devices-per-process", 0, low=0)
    port = _free_port()
    started = [
        [*_program(), *command, f"--distributed.coordinator=127.0.0.1:{port}",
         f"--distributed.num-processes={count}", f"--distributed.process-id={number}"]
        for number in range(count)
    ]  # fmt: skip
    if count == 1:
        started = [[*_program(), *command, "--distributed.detect=false"]]
    environments = [_environment(devices, number) for number in range(count)]
    return watch.run(started, range(count), environments)


def alone(cluster: distributed.Cluster) -> int:
    """Runs one process of several under a parent that speaks for it when JAX aborts it."""
    return watch.run([[*_program(), *sys.argv[1:]]], [cluster.process_id], [os.environ])


def _program() -> list[str]:
    """How this command line's program is started again."""
    return [sys.executable, "-P", "-c", _PROGRAM.format(name=sys.argv[0])]


def _environment(devices: int, number: int) -> dict[str, str]:
    """Of a process that has so many devices; 0 leaves that to JAX."""
    made = dict(os.environ)
    if devices == 0:
        return made
    if os.path.exists("/dev/nvidia0") and os.environ.get("JAX_PLATFORMS") != "cpu":
        mine = range(number * devices, (number + 1) * devices)
        return made | {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, mine))}
    kept = [word for word in made.get("XLA_FLAGS", "").split() if "device_count" not in word]
    flag = f"--xla_force_host_platform_device_count={devices}"
    return made | {"XLA_FLAGS": " ".join([*kept, flag])}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
