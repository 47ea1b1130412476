"""Debian's Chromium without a window, driven over its debugging pipe by the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names under which distributions install it.
PROGRAM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
SECONDS = 60.0


class Browser:
    """One tab. ``events`` collects what the browser reports: requests, console messages, exceptions."""

    def __init__(self, commands: int, answers: int) -> None:
        self.commands, self.answers = commands, answers
        self.buffer, self.number, self.session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the DevTools protocol and returns its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, page: Path, *, width: int, height: int, phone: bool = False, dark: bool = False) -> None:
        """Opens a file at a window size and waits until it has loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.events.clear()
        self.send("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, out: Path) -> None:
        """Writes the whole page as PNG, also what is below the window."""
        out.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]))

    def pdf(self) -> bytes:
        """The page as printed on A4."""
        return base64.b64decode(self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=True)["data"])

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS:.0f} s"
            part = os.read(self.answers, 1 << 20)
            assert part, "the browser ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Starts Chromium with its profile in ``profile`` and ends it."""
    assert PROGRAM is not None
    commands_read, commands = os.pipe()
    answers, answers_write = os.pipe()
    # The shell gives the pipes the numbers 3 and 4, where the browser looks for them. Its sandbox refuses to work for root.
    line = f'exec "$0" "$@" 3<&{commands_read} 4>&{answers_write}'
    options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "--disable-gpu",
               "--hide-scrollbars", "--disable-background-networking", "--disable-dev-shm-usage"]  # fmt: skip
    if os.geteuid() == 0:
        options.append("--no-sandbox")
    process = subprocess.Popen(
        ["/bin/bash", "-c", line, PROGRAM, *options, "about:blank"],
        pass_fds=(commands_read, answers_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(commands_read)
    os.close(answers_write)
    try:
        opened = Browser(commands, answers)
        yield opened
        opened.session = ""
        opened.send("Browser.close")
        process.wait(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(answers)
