"""A remote over HTTP that breaks off after a number of bytes, until it is repaired."""

import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Remote:
    """Serves a folder: HEAD, GET and PUT. An upload counts once it is whole."""

    def __init__(self, folder: Path, budget: int) -> None:
        self.folder, self.budget = folder, float(budget)
        self.broken = False
        self.lock = threading.Lock()
        self.server = Server(("127.0.0.1", 0), partial(Handler, self))
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Remote":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def heal(self) -> None:
        """Serve without limit from here on."""
        self.budget = float("inf")

    def spend(self, size: int) -> int:
        """Return how many of ``size`` bytes are transferred before the connection ends."""
        with self.lock:
            allowed = int(min(size, self.budget))
            self.budget -= allowed
            self.broken = self.broken or allowed < size
            return allowed


class Server(ThreadingHTTPServer):
    """A server that is silent about connections which its client ends."""

    def handle_error(self, *_: Any) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"

    def __init__(self, remote: Remote, *arguments: Any) -> None:
        self.remote = remote
        super().__init__(*arguments)

    def log_message(self, *_: Any) -> None:
        pass

    def path_of(self) -> Path:
        return self.remote.folder / self.path.lstrip("/")

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path_of()
        content = path.read_bytes() if path.is_file() else b""
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            allowed = self.remote.spend(len(content))
            self.wfile.write(content[:allowed])
            self.close_connection = allowed < len(content)

    def do_PUT(self) -> None:
        content = self.content()
        if content is None:
            self.close_connection = True
            return
        self.path_of().parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path_of().with_suffix(f".{threading.get_ident()}")
        temporary.write_bytes(content)
        temporary.replace(self.path_of())
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def content(self) -> bytes | None:
        """Return the body, or None where the connection ends before its end."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            size = int(self.headers.get("Content-Length", 0))
            return self.part(size)
        parts = []
        while size := int(self.rfile.readline(), 16):
            part = self.part(size)
            if part is None:
                return None
            parts.append(part)
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def part(self, size: int) -> bytes | None:
        allowed = self.remote.spend(size)
        content = self.rfile.read(allowed)
        return content if allowed == size else None
