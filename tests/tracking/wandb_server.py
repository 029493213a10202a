"""A fake W&B server on this machine: it accepts runs, or hangs, answers with errors or dies."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Behaviour = Literal["accepts", "hangs", "errs", "dies"]  # dies: errs from the first row on


class Server(ThreadingHTTPServer):
    """Records the path and the body of each request that it accepts."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.received: list[tuple[str, Any]] = []
        self.files: dict[str, bytes] = {}  # files/RUN/NAME and artifact/NAME

    def reply(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer that W&B's client needs to go on."""
        return reply(body, self.url)

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that hang up."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def history(self) -> list[dict[str, Any]]:
        """Return the rows of all runs."""
        return [
            json.loads(line)
            for path, body in self.received
            if path.endswith("file_stream")
            for line in body.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"] or 0))
        body = json.loads(content) if content[:1] == b"{" else {}
        if self.server.behaviour == "dies" and self.path.endswith("file_stream"):
            self.server.behaviour = "errs"
        if self.server.behaviour == "hangs":
            time.sleep(600)
        if self.server.behaviour == "errs":
            self.send_error(500)
            return
        self.server.received.append((self.path, body))
        if self.command == "PUT":
            self.server.files[self.path.removeprefix("/")] = content
        answer = json.dumps(self.server.reply(body)).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST

    def log_message(self, *_: Any) -> None:
        pass


def reply(body: dict[str, Any], url: str) -> dict[str, Any]:
    """Return the answer to what a run sends; see `Server.reply`."""
    query, variables = body.get("query", ""), body.get("variables") or {}
    if "upsertBucket" in query:
        project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "me"}}
        bucket = {
            "id": "b",
            "name": variables["name"],
            "config": "{}",
            "project": project,
            "historyLineCount": 0,
        }
        return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
    if "createRunFiles" in query:
        folder = f"{url}/files/{variables['run']}"
        files = [{"name": name, "uploadUrl": f"{folder}/{name}"} for name in variables["files"]]
        return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
    if "createArtifactFiles" in query:
        given = [file["name"] for file in variables["input"]["artifactFiles"]]
        nodes = [
            {"storagePath": "x", "uploadMultipartUrls": None, "artifact": {"id": "a"}}
            | upload(f"{url}/artifact/{name}")
            for name in given
        ]
        edges = [{"node": node} for node in nodes]
        return {"data": {"createArtifactFiles": {"files": {"edges": edges}}}}
    for name in ("createArtifactManifest", "updateArtifactManifest"):
        if name in query:
            manifest = {"id": "m", "file": {"id": "f"} | upload(f"{url}/manifest")}
            return {"data": {name: {"artifactManifest": manifest}}}
    if "commitArtifact" in query:
        return {"data": {"commitArtifact": {"artifact": {"id": "a", "digest": "d"}}}}
    if "createArtifact" in query:
        sequence = {"id": "s", "latestArtifact": None}
        artifact = {"id": "a", "state": "PENDING", "artifactSequence": sequence}
        return {"data": {"createArtifact": {"artifact": artifact}}}
    return {"data": {}}


def upload(url: str) -> dict[str, Any]:
    return {"uploadUrl": url, "uploadHeaders": []}


@contextmanager
def serving(behaviour: Behaviour, kind: type[Server] = Server) -> Iterator[Server]:
    """Run a server for the block."""
    with kind(behaviour) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
