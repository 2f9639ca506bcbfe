"""Headless Chromium, driven through its pipe: no port, no driver, no package."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""Where Chromium is; None where there is none."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)

START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser's pipe is its file descriptors 3 and 4: this puts two others there, and becomes the browser."""

SECONDS = 120
"""After which something that should have happened counts as a failure."""


class Tab:
    """One page of the browser, all that it said to its console, and every address that it asked for."""

    def __init__(self, write, read):
        self._write, self._read, self._buffer, self._number, self._session = write, read, b"", 0, None
        self.complaints, self.addresses = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Sends a command of the DevTools protocol and returns its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self):
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser said nothing for {SECONDS} s"
            piece = os.read(self._read, 1 << 16)
            assert piece, "the browser has ended"
            self._buffer += piece
        whole, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(whole)
        method, about = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.addresses.append(about["request"]["url"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"):
            self.complaints.append(message)
        return message

    def open(self, url, width=1280, height=900, dark=False):
        """Loads a page, and returns when all of it is there."""
        self.complaints.clear()
        self.addresses.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.addresses.clear()
        self.call("Page.navigate", url=url)
        self.until("location.protocol !== 'about:' && document.readyState === 'complete'")

    def value(self, expression):
        """What a JavaScript expression (a promise is awaited) is worth."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition):
        """Waits until a JavaScript condition holds."""
        end = time.monotonic() + SECONDS
        while not self.value(condition):
            assert time.monotonic() < end, f"never became true: {condition}"

    def place(self, selector):
        """The middle of an element, in pixels of the window, scrolled to where it is seen."""
        return self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return {x: b.x + b.width / 2, y: b.y + b.height / 2}; })()"
        )

    def point(self, selector, press=False):
        """Moves the mouse to an element's middle, and clicks with `press`."""
        place = self.place(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **place)
        for kind in ("mousePressed", "mouseReleased") if press else ():
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def wheel(self, selector, turned):
        """The mouse's wheel turned over an element's middle, down if `turned` is positive."""
        self.call("Input.dispatchMouseEvent", type="mouseWheel", deltaX=0, deltaY=turned, **self.place(selector))

    def drag(self, start, end):
        """The mouse pressed at one place of the window, moved to another and let go."""
        pressed = {"button": "left", "buttons": 1, "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=start[0], y=start[1])
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **pressed)
        for x, y in (((start[0] + end[0]) / 2, (start[1] + end[1]) / 2), end):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, **pressed)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **pressed | {"buttons": 0})

    def tap(self, selector):
        """A finger on an element's middle."""
        place = self.place(selector)
        self.call("Emulation.setTouchEmulationEnabled", enabled=True)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[place])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.call("Emulation.setTouchEmulationEnabled", enabled=False)

    def key(self, name):
        """A key pressed and let go."""
        code = {"Tab": 9, "Escape": 27, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "+": 187, "-": 189, "0": 48}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def picture(self):
        """The whole page as PNG, in base64."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        return self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)["data"]


@contextmanager
def tab(folder):
    """A page of a browser of its own, whose profile is in `folder`; the browser ends with the block."""
    to_browser, from_us = os.pipe()
    to_us, from_browser = os.pipe()
    words = [sys.executable, "-c", START, str(to_browser), str(from_browser), PROGRAM, *FLAGS, f"--user-data-dir={folder}"]
    with subprocess.Popen(words, pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL) as process:
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Tab(from_us, to_us)
        finally:
            os.close(from_us)
            os.close(to_us)
            process.terminate()
