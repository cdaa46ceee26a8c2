"""A headless Chromium, asked through its DevTools pipe."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page of a browser with a profile of its own."""

    def __init__(self, profile: Path, *, width: int = 1280, height: int = 1000):
        assert PROGRAM is not None
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # DevTools reads from 3 and writes to 4
        words = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        command = [PROGRAM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", words, "bash", str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        self._left, self._number, self.events = b"", 0, []
        (target,) = (
            each for each in self._send("Target.getTargets")["targetInfos"]
            if each["type"] == "page"
        )  # fmt: skip
        given = {"targetId": target["targetId"], "flatten": True}
        self._session = self._send("Target.attachToTarget", given)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.tell(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        self._send("Browser.close")
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)

    def tell(self, method: str, **given: Any) -> Any:
        """Calls a method of DevTools for the page."""
        return self._send(method, given, session=True)

    def resize(self, width: int, height: int = 1000) -> None:
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def shade(self, scheme: str) -> None:
        """Makes the page prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", features=features)

    def open(self, address: str) -> None:
        self.tell("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What an expression of the page is."""
        found = self.tell(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> Any:
        """Waits until an expression is true; its value."""
        end = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.05)
        return found

    def key(self, *names: str) -> None:
        """Presses keys, one after the other."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowLeft": 37, "Home": 36}
        for name in names:
            given = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
            more = {"text": "\r"} if name == "Enter" else {}
            self.tell("Input.dispatchKeyEvent", type="keyDown", **given, **more)
            self.tell("Input.dispatchKeyEvent", type="keyUp", **given)

    def write(self, text: str) -> None:
        self.tell("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """A picture of the whole page."""
        import base64

        found = self.tell("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _send(self, method: str, given: dict | None = None, session: bool = False) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given or {}}
        if session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]
            self.events.append(reply)

    def _receive(self) -> Any:
        while b"\0" not in self._left:
            part = os.read(self._read, 2**16)
            assert part, "the browser has gone"
            self._left += part
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)
