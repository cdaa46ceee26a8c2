"""`bin/serve`: a trained workdir behind HTTP, and a page that asks it."""

import time
from pathlib import Path

from jaxrec_diff.commands.terminal import (
    FILE,
    PLAIN,
    Accepts,
    explain,
    quiet_start,
    refuse,
    split_flags,
    trained_workdir,
    waiting,
    whole,
)

USAGE = """\
usage: bin/serve --workdir=DIR [--host=127.0.0.1] [--port=8321] [--seed=N]
                 [--data=PATH] [--new-items=FILE] [--section.field=VALUE ...]

  bin/serve --workdir=runs/dimerec-clicks
  bin/serve --workdir=runs/dimerec-clicks --model.sampler.kind=ddim \\
            --model.sampler.steps=10
  curl localhost:8321/recommend -H 'content-type: application/json' \\
       -d '{"histories": [["shoe-12", "hat-3"]], "k": 5}'

Opens a page at http://127.0.0.1:8321/: search items, click a history together,
see its list, and watch noise become items along the reverse walk.

  POST /recommend  {"histories": [[id, ...], ...]} or {"users": [id, ...]};
                   "k", "draws", "include_seen"
  POST /walk       {"history": [id, ...]} or {"user": id}; "draws", "nearest"
  GET  /items?q=   items by title or id     GET /users/ID  a known history
  GET  /about      model and limits         GET /healthz, /metrics (Prometheus)

--host  127.0.0.1 answers this machine alone; 0.0.0.0 everybody, without asking
        who they are
--port  0 takes any that is free
--seed  of the sampler's noise; the run's by default
--data  where the interactions are now, if they were moved
--new-items  as for bin/recommend

Lists are those of bin/recommend. SIGTERM answers what is under way and ends.
"""

ACCEPTS = Accepts(
    {
        "workdir": FILE,
        "host": PLAIN,
        "port": PLAIN,
        "seed": PLAIN,
        "data": FILE,
        "new-items": FILE,
    },
    fields="",
)
_PORT = 8321


def run(argv: list[str]) -> int:
    flags = split_flags(argv, ACCEPTS)
    if flags.help:
        return explain(USAGE)
    workdir = trained_workdir(flags)
    host, port = flags.bare.get("host", "127.0.0.1"), whole(flags, "port", _PORT, 0)
    if port > 65535:
        return refuse(f"--port must be at most 65535, got {port}; the usual one is {_PORT}")
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        return refuse(f"serving needs {error.name}: pip install 'jaxrec-diff[serve]'")
    quiet_start()
    from jaxrec_diff.experiments import restore
    from jaxrec_diff.inference import new_items
    from jaxrec_diff.serving import app, engine, server, service
    from jaxrec_diff.serving.limits import Limits
    from jaxrec_diff.serving.meters import Meters

    with server.bound(host, port) as made:
        started, limits, meters = time.monotonic(), Limits(), Meters()
        reopened = restore.reopen(workdir, flags.dotted, flags.bare.get("data"))
        restored = restore.restore(reopened, workdir)
        if "new-items" in flags.bare:
            restored = new_items.extended(restored, workdir, Path(flags.bare["new-items"]))
        seed = whole(flags, "seed", 0, 0) if "seed" in flags.bare else None
        made_of = engine.Engine(restored, limits, seed=seed, compiled=meters.compiled)
        with waiting("compiling"):
            made_of.warm()
        served = service.Service(restored, made_of, limits)
        about = f"{restored.phase.title} on {restored.phase.dataset.name}"

        def ready() -> None:
            seconds = time.monotonic() - started
            print(f"{about}, ready after {seconds:.1f} s: {server.address(made, host)}", flush=True)

        server.run(app.create(served, limits, meters, hosts=server.names(host)), made, ready)
    return 0
