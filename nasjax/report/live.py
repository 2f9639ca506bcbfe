"""The server of `nasjax report --watch`: pages of all runs of a folder, on this machine only, and nothing is written."""

import errno
import os
import re
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from nasjax.errors import ConfigError
from nasjax.report.live_pages import answer, followed, note

ADDRESS = "127.0.0.1"
HOSTS = (ADDRESS, "localhost")
"""The names of this machine that a browser may have asked for: any other could have been pointed here by its owner."""

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""Sent with every answer."""


def live_server(root: Path, port: int) -> ThreadingHTTPServer:
    """A server of the pages of all runs in a folder, at 127.0.0.1; port 0 is any that is free.

    Raises ConfigError where the folder does not exist, or the port may not be used.
    """
    if not root.is_dir():
        raise ConfigError(f"--watch: there is no folder {root}")
    try:
        return ThreadingHTTPServer((ADDRESS, port), partial(_Handler, root.absolute()))
    except PermissionError:
        raise ConfigError(f"--port={port} may not be used here; name one above 1023") from None
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(f"--port={port} is in use; name another, or 0 for any that is free") from None


class _Handler(BaseHTTPRequestHandler):
    """Answers one request: GET with a page, HEAD with its version."""

    timeout = 60
    server_version, sys_version = "nasjax", ""

    def __init__(self, root: Path, *others: Any):
        self._root = root
        super().__init__(*others)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing: every page asks each second."""

    def _answer(self, with_content: bool) -> None:
        try:
            self._send(with_content)
        except ConnectionError:  # The browser went on to another page.
            self.close_connection = True

    def _send(self, with_content: bool) -> None:
        if re.sub(r":\d+$", "", self.headers.get("Host", "").lower()) not in HOSTS:
            self.send_error(403, "Only by the names 127.0.0.1 and localhost")
            return
        found = answer(self._root, os.fsdecode(unquote_to_bytes(urlsplit(self.path).path)))
        text, status = "", found.status
        if with_content:
            try:
                text = found.content()
            except (ConfigError, OSError) as error:
                text, status = followed(note(str(error)), found.version, "cannot be read"), 500
        data = text.encode(errors="replace")
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{found.kind}; charset=utf-8")
        self.send_header("ETag", f'"{found.version}"')
        if with_content:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
