"""What stands before every request: who may ask, how many at once, and what no answer lacks."""

import time
import traceback
from collections import Counter
from collections.abc import Collection
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jaxrec_diff.serving.bodies import Refused
from jaxrec_diff.serving.limits import Limits
from jaxrec_diff.serving.meters import Meters

# A page of this server loads from it alone, sends to it alone, and stands in no other page.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_FREE = frozenset({"/healthz", "/metrics"})  # of those who watch a busy server


class Guard:
    """An ASGI application around another."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        meters: Meters,
        hosts: Collection[str] | None,
        paths: Collection[str],
    ):
        """
        Args:
          app: what answers.
          limits: of requests that are under way.
          meters: that are told of every request.
          hosts: names that this server goes by, None for any. A page of elsewhere whose name was
            made to point here is refused by them.
          paths: that are counted by name.
        """
        self._app, self._limits, self._meters = app, limits, meters
        self._hosts, self._paths = hosts, sorted(paths, key=len, reverse=True)
        self._of: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        path, begun = self._named(scope["path"]), False
        free = scope["path"] in _FREE
        client = (scope.get("client") or ("", 0))[0]

        async def sent(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        if not free:
            self._of[client] += 1
            self._meters.under_way.inc()
        try:
            self._admit(scope, client, free)
            await self._app(scope, receive, sent)
        except Refused as refused:
            await _said(refused)(scope, receive, sent)
        except Exception:
            traceback.print_exc()
            if begun:
                raise
            broken = Refused(500, "the server failed at this request; its log says where")
            await _said(broken)(scope, receive, sent)
        finally:
            if not free:
                self._of[client] -= 1
                self._of += Counter()  # forgets who has nothing under way
                self._meters.under_way.dec()
            self._meters.requests.labels(path, str(status)).inc()
            self._meters.seconds.labels(path).observe(time.perf_counter() - started)

    def _admit(self, scope: Scope, client: str, free: bool) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise Refused(400, f"this server does not go by the name {host[:60]!r}")
        if free:
            return
        wait = {"retry-after": "1"}
        if self._of[client] > self._limits.requests_of_one:
            most = self._limits.requests_of_one
            raise Refused(429, f"{most} requests of one address are under way; wait for one", wait)
        if self._of.total() > self._limits.requests:
            most = self._limits.requests
            raise Refused(503, f"{most} requests are under way; try again in a second", wait)

    def _named(self, path: str) -> str:
        """The path that a request is counted under."""
        for known in self._paths:
            if path == known or known.endswith("/") and known != "/" and path.startswith(known):
                return known
        return "other"


def _said(refused: Refused) -> Any:
    return JSONResponse({"error": str(refused)}, refused.status, refused.headers)


def _name(host: str) -> str:
    """The name of a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()
