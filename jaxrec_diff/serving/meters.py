"""What a server counts, as Prometheus reads it."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    exposition,
)

CONTENT_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "jaxrec_requests", "Requests by path and status.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "jaxrec_request_seconds", "From a request to its answer.", ["path"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.under_way = Gauge(
            "jaxrec_requests_under_way", "Requests that are being answered.", registry=registry
        )
        self.waiting = Gauge(
            "jaxrec_waiting_histories", "Histories that wait for their batch.", registry=registry
        )
        self.rows = Histogram(
            "jaxrec_batch_histories", "Histories of a compiled call.", ["program"],
            buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry,
        )  # fmt: skip
        self.batch_seconds = Histogram(
            "jaxrec_batch_seconds", "Of a compiled call.", ["program"],
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self.programs = Counter(
            "jaxrec_compiled_programs", "Programs compiled so far.", ["program"], registry=registry
        )
        self.compile_seconds = Counter(
            "jaxrec_compile_seconds", "Spent on compiling.", registry=registry
        )

    def watch_waiting(self, count: Callable[[], float]) -> None:
        """Reads the number of waiting histories whenever it is asked for."""
        self.waiting.set_function(count)

    def compiled(self, program: str, seconds: float) -> None:
        """Notes a program that was compiled."""
        self.programs.labels(program).inc()
        self.compile_seconds.inc(seconds)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return exposition.generate_latest(self._registry)
