"""Servers of small models, asked in the process of the test."""

import asyncio
import json
from typing import Any, NamedTuple

import pytest

pytest.importorskip("starlette", reason="needs the extra `serve`")
pytest.importorskip("httpx", reason="needs the extra `test`")

import httpx  # noqa: E402

from jaxrec_diff.serving import app, engine, service  # noqa: E402
from jaxrec_diff.serving.limits import Limits  # noqa: E402
from jaxrec_diff.serving.meters import Meters  # noqa: E402


class Reply(NamedTuple):
    status: int
    body: Any
    headers: Any


class Server:
    """An application with its life, and a client of it."""

    def __init__(self, restored, limits: Limits = Limits(), hosts=None):  # noqa: B008
        self.restored, self.limits, self.meters = restored, limits, Meters()
        self.engine = engine.Engine(restored, limits, compiled=self.meters.compiled)
        self.service = service.Service(restored, self.engine, limits)
        self.app = app.create(self.service, limits, self.meters, hosts=hosts)
        self._runner = asyncio.Runner()
        self._life = self.app.router.lifespan_context(self.app)
        self._runner.run(self._life.__aenter__())
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://127.0.0.1"
        )

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.run(self._life.__aexit__(None, None, None))
        self._runner.close()

    async def _ask(self, method: str, path: str, **more) -> Reply:
        got = await self._client.request(method, path, **more)
        kind = got.headers.get("content-type", "")
        body = json.loads(got.content) if kind == "application/json" else got.text
        return Reply(got.status_code, body, got.headers)

    def ask(self, method: str, path: str, **more) -> Reply:
        return self._runner.run(self._ask(method, path, **more))

    def get(self, path: str, **more) -> Reply:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any, **more) -> Reply:
        return self.ask("POST", path, json=body, **more)

    def post_all(self, path: str, bodies: list) -> list[Reply]:
        """Many requests at once."""

        async def every():
            return await asyncio.gather(*(self._ask("POST", path, json=body) for body in bodies))

        return self._runner.run(every())

    def counted(self, name: str) -> float:
        """A line of /metrics."""
        lines = self.get("/metrics").body.splitlines()
        return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


@pytest.fixture
def serve():
    """A function from a restored model to a server that ends with the test."""
    made = []

    def start(*args, **more) -> Server:
        made.append(Server(*args, **more))
        return made[-1]

    yield start
    for each in made:
        each.close()
