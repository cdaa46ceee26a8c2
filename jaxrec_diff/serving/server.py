"""The socket of a server, and its life: it answers until a signal, and then what is under way."""

import errno
import signal
import socket
from collections.abc import Callable
from typing import Any

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_DRAIN = 30  # seconds that requests under way have after a signal


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address; nobody can connect to it yet.

    Raises:
      ValueError: naming the address and what to do, if it cannot be had.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise ValueError(f"--host={host} is no address of this machine; try 127.0.0.1") from None
    made = socket.socket(family, kind, number)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(address)
    except OSError as error:
        made.close()
        raise ValueError(_why(error, host, port)) from None
    return made


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; name another: --port={port % 65535 + 1}"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has; the nearest is --port=8321"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host={host} is no address of this machine; try 127.0.0.1"
    return f"{host}:{port} cannot be listened on: {(error.strerror or str(error)).lower()}"


def names(host: str) -> list[str] | None:
    """What a server may be called by who asks it; None is anything, of one that others reach.

    >>> names("0.0.0.0") is None, "localhost" in names("127.0.0.1")
    (True, True)
    """
    return ["127.0.0.1", "localhost", "[::1]"] if host in _LOOPBACK else None


def address(made: socket.socket, host: str) -> str:
    """Where a browser finds a server."""
    name = f"[{host}]" if ":" in host else host
    if host in ("0.0.0.0", "::"):
        name = "localhost"
    return f"http://{name}:{made.getsockname()[1]}/"


def run(app: Any, made: socket.socket, ready: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT, and answers what is under way by then.

    SIGTERM is the usual end; SIGINT then does what it did before.

    Raises:
      ValueError: if another program has come to listen at the address.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready()

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, ws="none",
        timeout_graceful_shutdown=_DRAIN, timeout_keep_alive=30, lifespan="on",
    )  # fmt: skip
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    host, port = made.getsockname()[:2]
    try:  # uvicorn raises the signals that it had once more when it is done
        Server(config).run([made])
    except OSError as error:
        raise ValueError(_why(error, host, port)) from None
    finally:
        signal.signal(signal.SIGTERM, before)
