"""What `bin/serve` bears: requests a second, their times, and its memory over many requests.

    python benchmarks/serve.py --workdir=runs/dimerec-ml-100k

Starts the server on a free port of this machine and asks it from several clients that keep their
connections, each sending its next request as soon as it has the answer to its last. A request is a
history of 1 to 16 popular items. Every answer is looked at: a list of k items that are not in its
history; and some histories are asked again at the end, alone, for the same list. Writes
`results/serve.json`.
"""

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from jaxrec_diff.experiments import provenance, restore

ROOT = Path(__file__).parents[1]
K = 20
WARM, CHECKED, DRAWS = 200, 50, 4
CALLS = 'jaxrec_batch_histories_count{program="recommend"}'


class Client:
    """A connection that is kept."""

    def __init__(self, port: int):
        self._port, self._connection = port, http.client.HTTPConnection("127.0.0.1", port, 120)

    def ask(self, path: str, body: Any = None) -> tuple[int, bytes]:
        given = None if body is None else json.dumps(body)
        headers = {"content-type": "application/json"}
        self._connection.request("GET" if body is None else "POST", path, given, headers)
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def list_of(self, history: list) -> list | None:
        """The items recommended for a history; None where the answer is not what it should be."""
        status, body = self.ask("/recommend", {"histories": [history], "k": K})
        if status != 200:
            return None
        (found,) = json.loads(body)["lists"]
        items = found["items"]
        good = len(items) == len(set(items)) == K and not set(items) & set(history)
        return items if good else None


def counted(port: int, name: str) -> float:
    """The sum of the lines of /metrics that begin with a name."""
    lines = Client(port).ask("/metrics")[1].decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def start(workdir: Path) -> tuple[subprocess.Popen, int, float]:
    """A server, its port and the seconds until it was ready."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "jaxrec_diff.cli", "serve", f"--workdir={workdir}", "--port=0"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if "ready after" in line:
            return server, int(line.rstrip("/\n").rpartition(":")[2]), time.monotonic() - begun
    raise SystemExit(f"the server ended with {server.wait()}")


def used(pid: int) -> tuple[float, float]:
    """MiB that a process holds, and the processor seconds that it took."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, seconds


def load(port: int, histories: list[list], clients: int, every: int, pid: int) -> dict[str, Any]:
    """Asks for the lists of all histories from some clients at once."""
    left, lock = iter(list(enumerate(histories))), threading.Lock()
    lists: list[list | None] = [None] * len(histories)
    seconds, memory, done = np.zeros(len(histories)), [used(pid)[0]], [0]

    def work() -> None:
        client = Client(port)
        while True:
            with lock:
                place, history = next(left, (-1, []))
            if place < 0:
                return
            begun = time.perf_counter()
            lists[place] = client.list_of(history)
            seconds[place] = time.perf_counter() - begun
            with lock:
                done[0] += 1
                if done[0] % every == 0:
                    memory.append(used(pid)[0])

    calls = counted(port, CALLS)
    cpu, begun = used(pid)[1], time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, calls = time.perf_counter() - begun, counted(port, CALLS) - calls
    found = {
        "clients": clients,
        "requests": len(histories),
        "lost": sum(each is None for each in lists),
        "requests_per_second": round(len(histories) / wall, 1),
        **quantiles(seconds),
        "histories_per_call": round(len(histories) / calls, 2),
        "server_processor_ms_per_request": round(1e3 * (used(pid)[1] - cpu) / len(histories), 2),
        "memory_mib": [round(each, 1) for each in memory],
    }
    alone, places = Client(port), range(0, len(histories), max(len(histories) // CHECKED, 1))
    same = [alone.list_of(histories[place]) == lists[place] for place in places]
    return found | {"asked_again_alone": len(same), "other_lists": len(same) - sum(same)}


def quantiles(seconds: np.ndarray) -> dict[str, float]:
    low, high, highest = (round(1e3 * each, 2) for each in np.quantile(seconds, [0.5, 0.99, 1.0]))
    return {"p50_ms": low, "p99_ms": high, "highest_ms": highest}


def walks(port: int, histories: list[list]) -> dict[str, Any]:
    """Asks for walks, one after the other."""
    client, seconds = Client(port), []
    for history in histories:
        begun = time.perf_counter()
        status, _ = client.ask("/walk", {"history": history, "draws": DRAWS})
        seconds.append(time.perf_counter() - begun)
        assert status == 200, "this model does not walk"
    return {"requests": len(histories), "draws": DRAWS, **quantiles(np.array(seconds))}


def measured(workdir: Path, requests: int, clients: int) -> dict[str, Any]:
    server, port, ready = start(workdir)
    try:
        client = Client(port)
        about = json.loads(client.ask("/about")[1])
        items = [each["item"] for each in json.loads(client.ask("/items?limit=100")[1])["items"]]
        draw = random.Random(0)
        histories = [draw.sample(items, draw.randint(1, 16)) for _ in range(WARM + requests)]
        load(port, histories[:WARM], clients, WARM, server.pid)
        before = counted(port, "jaxrec_compiled_programs_total")
        many = load(port, histories[WARM:], clients, max(requests // 10, 1), server.pid)
        compiled = counted(port, "jaxrec_compiled_programs_total") - before
        few = histories[: requests // 20]
        one, walked = load(port, few, 1, requests, server.pid), walks(port, few)
        server.send_signal(signal.SIGTERM)
        return {
            "model": about["model"],
            "dataset": about["dataset"],
            "items": about["items"],
            "k": K,
            "ready_s": round(ready, 1),
            "many_clients": many,
            "one_client": one,
            "walks_of_one_client": walked,
            "compiled_meanwhile": int(compiled),
            "exit_code": server.wait(120),
        }
    finally:
        server.kill()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/serve.json")
    given = parser.parse_args()
    busy = os.getloadavg()[0]  # of the machine before: more than 0 is others' work beside this
    run = restore.reopen(given.workdir)
    command = " ".join(["python", *sys.argv])
    made = provenance.provenance(command, run.experiment.seed, run.mesh)
    found = {"load": busy} | measured(given.workdir, given.requests, given.clients) | made
    given.output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
