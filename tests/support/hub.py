"""A stand-in for the hub's HTTP interface, as far as huggingface_hub's client uses it for models.

On 127.0.0.1, with the faults that tests stage: a connection cut in the middle of a file, a
repository that needs a token, one that is not there.
"""

import hashlib
import json
import threading
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_letmein"
WAIT_S = 60.0  # for a test that has failed
LFS_FROM = 100_000  # bytes; larger files are told with their SHA-256, as large files on the hub


class Hub:
    """Repositories by id, each a folder, and what was asked."""

    def __init__(self):
        self.url = ""
        self.reset()

    def reset(self):
        """Forget repositories, faults and requests."""
        self.repositories = {}
        self.gated = set()  # ids that want TOKEN
        self.cut_after = None  # bytes of a large file after which the connection ends, once
        self.hold_after = None  # bytes of a large file after which it waits for `go_on`, once
        self.holding, self.go_on = threading.Event(), threading.Event()
        self.damage = False  # whether checksums are told wrong
        self.requests = []  # (method, path, the Range asked for)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self):
        self._answer()

    def do_HEAD(self):
        self._answer()

    def log_message(self, *arguments):
        """Say nothing."""

    def _answer(self):
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if path.startswith("api/models/"):
            self._api(path.removeprefix("api/models/").split("/"))
        else:
            owner, name, resolve, _, *rest = [*path.split("/"), "", "", ""]
            file = "/".join(part for part in rest if part)
            if resolve == "resolve" and (repository := self._repository(f"{owner}/{name}")):
                self._file(repository, file)

    def _repository(self, model):
        """Return a repository's folder, None if that was answered with an error already."""
        if model not in self.hub.repositories:
            self._error(HTTPStatus.NOT_FOUND, "RepoNotFound", "Repository not found")
        elif model in self.hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(HTTPStatus.UNAUTHORIZED, "GatedRepo", "Access to this model is restricted")
        else:
            return self.hub.repositories[model]
        return None

    def _api(self, parts):
        folder = self._repository("/".join(parts[:2]))
        if folder is None:
            return
        files = sorted(path for path in folder.iterdir() if path.is_file())
        if "tree" in parts:
            self._json([self._entry(path) for path in files])
        else:
            siblings = [{"rfilename": path.name} for path in files]
            model = "/".join(parts[:2])
            self._json({"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings})

    def _entry(self, path):
        data = path.read_bytes() + (b"!" if self.hub.damage else b"")
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        entry = {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": blob}
        if path.stat().st_size >= LFS_FROM:
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, folder, name):
        path = folder / name
        if not path.is_file():
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found")
            return
        data = path.read_bytes()
        etag = hashlib.sha256(data).hexdigest()
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        status = HTTPStatus.PARTIAL_CONTENT if begin else HTTPStatus.OK
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self._send(status, data[begin:], "application/octet-stream", headers)

    def _json(self, value):
        self._send(HTTPStatus.OK, json.dumps(value).encode(), "application/json", {})

    def _error(self, status, code, message):
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), "application/json", headers)

    def _send(self, status, body, kind, headers):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.cut_after is not None and len(body) > self.hub.cut_after:
            body, self.hub.cut_after = body[: self.hub.cut_after], None
            self.close_connection = True
        if self.hub.hold_after is not None and len(body) > self.hub.hold_after:
            begin, self.hub.hold_after = self.hub.hold_after, None
            self.wfile.write(body[:begin])
            body = body[begin:]
            self.hub.holding.set()
            self.hub.go_on.wait(WAIT_S)
        with suppress(ConnectionError):  # who asked may be gone
            self.wfile.write(body)


@contextmanager
def standing_in():
    """Run a stand-in until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
