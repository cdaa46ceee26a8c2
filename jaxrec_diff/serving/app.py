"""The routes of a server.

    GET  /             the page
    GET  /about        what is served, and its limits
    POST /recommend    {"histories": [[id, ...], ...]} or {"users": [id, ...]}, "k", "draws",
                       "include_seen" -> lists
    POST /walk         {"history": [id, ...]} or {"user": id}, "draws", "nearest", "include_seen"
                       -> what is nearest along the reverse walk
    GET  /items?q=     items whose title or id holds the words of q
    GET  /users/ID     the history of a known user
    GET  /healthz      whether it answers
    GET  /metrics      counters, for Prometheus

Whatever is refused is {"error": "a sentence"} under a status that says whose fault it is.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from jaxrec_diff.serving import bodies
from jaxrec_diff.serving.batching import Batcher, Full
from jaxrec_diff.serving.bodies import Refused
from jaxrec_diff.serving.engine import Question
from jaxrec_diff.serving.guard import Guard
from jaxrec_diff.serving.limits import Limits
from jaxrec_diff.serving.meters import CONTENT_TYPE, Meters
from jaxrec_diff.serving.service import Service

_PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_PATHS = ("/about", "/recommend", "/walk", "/items", "/users/", "/healthz", "/metrics")


class _Id(Convertor[str]):
    """All that is left of a path: an id may hold slashes, and newlines, which `path` stops at."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())


def create(
    service: Service, limits: Limits, meters: Meters, *, hosts: Collection[str] | None = None
) -> Starlette:
    """The application.

    Args:
      service: a trained model.
      limits: of requests.
      meters: that are told of every request.
      hosts: names that the server goes by; any by default.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        def answer(kind: tuple[str, int], questions: list[Question]) -> list[Any]:
            started = time.perf_counter()
            found = service.answer(*kind, questions)
            meters.rows.labels(kind[0]).observe(len(questions))
            meters.batch_seconds.labels(kind[0]).observe(time.perf_counter() - started)
            return found

        batcher = Batcher(answer, rows=limits.histories, wait=limits.wait, waiting=limits.waiting)
        meters.watch_waiting(lambda: batcher.waiting)
        async with batcher:
            app.state.batcher = batcher
            yield

    async def ask(request: Request, kind: tuple[str, int], questions: list[Question]) -> list[Any]:
        if not questions:
            return []
        try:
            return await request.app.state.batcher.ask(kind, questions)
        except Full:
            sentence = f"{limits.waiting:,} histories wait already; try again in a second"
            raise Refused(503, sentence, {"retry-after": "1"}) from None

    async def recommend(request: Request) -> Response:
        asked = bodies.lists(await _body(request, limits), limits, service.engine.k)
        rows, unknown = service.rows(asked)
        kind = "recommend", asked.draws
        questions = [row.question for row in rows if row.question is not None]
        answers = iter(await ask(request, kind, questions))
        lists = [
            service.list_of(row, None if row.question is None else next(answers), asked)
            for row in rows
        ]
        return JSONResponse({"lists": lists, "unknown": unknown})

    async def walk(request: Request) -> Response:
        asked = bodies.path(await _body(request, limits), limits, service.engine.nearest)
        question, unknown = service.walker(asked)
        (found,) = await ask(request, ("walk", asked.draws), [question])
        return JSONResponse(service.walk_of(found) | {"unknown": unknown})

    async def items(request: Request) -> Response:
        text = bodies.text(request.query_params.get("q", ""), limits)
        most = bodies.limit(request.query_params.get("limit", "20"), limits)
        found, total = service.catalogue.search(text, most)
        entries = [service.catalogue.entry(item) for item in found]
        return JSONResponse({"items": entries, "total": total})

    async def users(request: Request) -> Response:
        return JSONResponse(service.user(request.path_params["user"]))

    async def about(request: Request) -> Response:
        return JSONResponse(service.about())

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        return Response(meters.text(), media_type=CONTENT_TYPE)

    guard = Middleware(
        Guard, limits=limits, meters=meters, hosts=hosts, paths=[*_PAGE, *_PATHS]
    )  # fmt: skip
    app = Starlette(
        routes=[
            *(Route(path, _file(*of)) for path, of in _PAGE.items()),
            Route("/recommend", recommend, methods=["POST"]),
            Route("/walk", walk, methods=["POST"]),
            Route("/items", items),
            Route("/users/{user:id}", users),
            Route("/about", about),
            Route("/healthz", healthz),
            Route("/metrics", metrics),
        ],
        middleware=[guard],
        exception_handlers={HTTPException: _no_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


def _file(name: str, kind: str) -> Any:
    content = resources.files("jaxrec_diff.serving").joinpath("page", name).read_bytes()

    async def file(request: Request) -> Response:
        return Response(content, headers={"content-type": kind})

    return file


async def _body(request: Request, limits: Limits) -> bytes:
    """The body of a request, no longer than it may be and in time.

    Raises:
      Refused: on any other.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "send the body as content-type application/json")
    too_long = Refused(413, f"a body has at most {limits.body:,} bytes; ask in parts")
    said = request.headers.get("content-length", "0")
    if said.isascii() and said.isdecimal() and (len(said) > 18 or int(said) > limits.body):
        raise too_long
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body:
                    raise too_long
    except TimeoutError:
        sentence = f"the body was not there after {limits.seconds:g} seconds"
        raise Refused(408, sentence, {"connection": "close"}) from None
    except ClientDisconnect:
        raise Refused(400, "the body ended before its end") from None
    return bytes(body)


async def _no_route(request: Request, error: Exception) -> Response:
    """A path or a method that there is not."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:60]
    if error.status_code == 405:
        allowed = " or ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        sentence = f"{path} is asked by {allowed}, not by {request.method}"
    else:
        sentence = f"there is no {path}; there are {', '.join(_PATHS)}"
    return JSONResponse({"error": sentence}, error.status_code, error.headers)
