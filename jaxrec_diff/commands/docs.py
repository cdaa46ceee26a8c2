"""`bin/docs`: the documentation as pages to be read offline."""

import importlib
from pathlib import Path

from jaxrec_diff.commands import COMMANDS
from jaxrec_diff.commands.terminal import (
    FILE,
    PLAIN,
    Accepts,
    explain,
    refuse,
    split_flags,
    waiting,
    whole,
)

USAGE = """\
usage: bin/docs [--output=build/docs] [--serve] [--port=8322]

  bin/docs                         writes build/docs/index.html and the rest
  bin/docs --output=site --serve   and shows them at 127.0.0.1

Guides, a page a system with its figures, every command and the reference of the
package, made from docstrings, presets and results. The pages need no network.

--output  an empty folder, or one that this command wrote
--serve   shows the pages until Ctrl-C
--port    of the pages that are shown
"""

ACCEPTS = Accepts({"output": FILE, "port": PLAIN}, ("serve",))


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    if flags.dotted:
        return refuse(f"unknown flag {flags.dotted[0]}; see bin/docs --help")
    port = whole(flags, "port", 8322)
    if port > 65535:
        return refuse(f"--port must be a whole number of at most 65,535, got {port}")
    output = Path(flags.bare.get("output", "build/docs"))
    from jaxrec_diff.docs import site

    with waiting("writing the documentation") as tell:
        first = site.build(output, usages(), tell=tell)
    print(f"the documentation is {first}", flush=True)
    if "serve" in flags.switches:
        _serve(output, port)
    return 0


def usages() -> dict[str, tuple[str, str]]:
    """Of every command, what it does in a line and its help."""
    found = {}
    for name, what in COMMANDS.items():
        usage = importlib.import_module(f"jaxrec_diff.commands.{name}").USAGE
        found[name] = (what, usage.replace("{models}", "NAME"))
    return found


def _serve(folder: Path, port: int) -> None:
    """Shows a folder on this machine alone, until it is stopped.

    Raises:
      ValueError: if the port is taken.
    """
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise ValueError(
            f"port {port} cannot be used: {(error.strerror or str(error)).lower()}; name another "
            "one with --port"
        ) from None
    with server:
        print(f"shown at http://127.0.0.1:{port}/ until Ctrl-C", flush=True)
        server.serve_forever()
