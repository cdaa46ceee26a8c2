"""The command as a process: how it starts, what it refuses, how it ends."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxrec_diff import cli

pytest.importorskip("uvicorn", reason="needs the extra `serve`")
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port=0x"], "--port must be a whole number of at least 0, got '0x'"),
        (["--port=70000"], "--port must be at most 65535, got 70000; the usual one is 8321"),
        (["--host=nowhere.invalid"], "--host=nowhere.invalid is no address of this machine"),
        (["--host=192.0.2.1"], "--host=192.0.2.1 is no address of this machine"),
        (["--prot=1"], "--prot"),
        (["--port=0", "--model.zzz=1"], "--model.zzz"),
        (["--port=0", "--data=nowhere.csv"], "nowhere.csv"),
    ],
)
def test_wrong_flags_are_one_sentence(clicks_run, flags, said, capsys):
    assert cli.main(["serve", f"--workdir={clicks_run}", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.startswith("error: ")


def test_no_run_and_a_port_in_use_are_one_sentence(clicks_run, tmp_path, capsys):
    assert cli.main(["serve", f"--workdir={tmp_path}"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", f"--workdir={clicks_run}", f"--port={port}"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "no run" in first or "config.json" in first
    assert f"port {port} of 127.0.0.1 is in use; name another: --port={port % 65535 + 1}" in second


class Process:
    """`bin/serve` on a port that was free."""

    def __init__(self, workdir: Path, *flags: str):
        environment = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "jaxrec_diff.cli", "serve", f"--workdir={workdir}"]
        self.process = subprocess.Popen(
            [*command, "--port=0", *flags], cwd=ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if "ready after" in line:
                break
        else:
            raise AssertionError(self.process.communicate()[1])
        self.port = int(line.rstrip("/\n").rpartition(":")[2])

    def ask(self, path: str, body=None) -> tuple[int, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json"}
        given = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, given, headers)
        reply = connection.getresponse()
        found = reply.status, json.loads(reply.read())
        connection.close()
        return found

    def ended(self) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        error = self.process.communicate(timeout=120)[1]
        return self.process.returncode, error


@pytest.mark.slow
def test_sigterm_answers_what_is_under_way_and_ends(clicks_run):
    server = Process(clicks_run)
    try:
        assert server.ask("/healthz") == (200, {"status": "ok"})
        want = server.ask("/recommend", {"histories": [["shoe-01", "shoe-02"]], "k": 5})
        assert want[0] == 200
        half = json.dumps({"histories": [["shoe-01", "shoe-02"]], "k": 5}).encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw:
            raw.sendall(
                b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-length: %d\r\n"
                b"content-type: application/json\r\n\r\n" % len(half) + half[:10]
            )
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", server.port), timeout=5)
            raw.sendall(half[10:])
            reply = http.client.HTTPResponse(raw)
            reply.begin()
            assert (reply.status, json.loads(reply.read())) == want
        code, error = server.ended()
        assert (code, error) == (0, "")
    finally:
        server.process.kill()
    command = ["recommend", f"--workdir={clicks_run}", "--history=shoe-01,shoe-02", "--k=5"]
    program = [sys.executable, "-m", "jaxrec_diff.cli", *command, "--json"]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    (listed,) = json.loads(run.stdout)["lists"]
    (served,) = want[1]["lists"]
    assert served["items"] == listed["items"]
    assert served["scores"] == pytest.approx(listed["scores"], rel=1e-5)


@pytest.mark.slow
def test_half_sent_and_broken_requests_leave_no_trace(clicks_run):
    server = Process(clicks_run)
    try:
        for sent in (
            b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n",
            b"POST /recommend HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: 50\r\n\r\n{",
            b"GET / HTTP/9.9\r\n\r\n", b"x" * 100_000, b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n",
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(sent)
        assert server.ask("/healthz")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        code, error = server.ended()
        assert code == 0 and "Traceback" not in error
    finally:
        server.process.kill()
