"""A Batch API like OpenAI's: files, batches that take some looks to be done, and their output, in any order."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.services.model_server import Exchange, Reply, error

__all__ = ["BatchServer"]


class BatchServer:
    """Answers what a `model_server` gets.

    Args:
        answering: the status and the body for a request of a batch; None for none, as when a batch expires.
        looks: how often a batch has to be looked at before it is done.

    Attributes:
        files: by id.
        batches: by id, as they are told.
        status: what becomes of new batches in the end.
    """

    def __init__(self, answering: Callable[[dict[str, Any]], tuple[int, Any] | None], looks: int = 2) -> None:
        self.answering = answering
        self.looks = looks
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.status = "completed"
        self.fails_before_answering = False
        """The next batch is made, and whoever asked for it is not told."""
        self.failing_looks = 0
        """So many looks at a batch fail before the next one succeeds."""

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests of all batches."""
        files = [self.files[batch["input_file_id"]] for batch in self.batches.values()]
        return [json.loads(line) for file in files for line in file.splitlines()]

    def __call__(self, exchange: Exchange) -> Reply:
        place = exchange.path.removeprefix("/v1/").partition("?")[0].split("/")
        if place == ["files"]:
            return self._keep(exchange)
        if place[0] == "files":
            return Reply(self.files[place[1]], kind="application/octet-stream")
        if place == ["batches"] and exchange.method == "POST":
            return self._create(exchange.body)
        if place == ["batches"]:
            listed = list(reversed(self.batches.values()))
            return Reply({"object": "list", "data": listed, "has_more": False})
        if place[0] == "batches":
            return self._look(place[1])
        return error(404, "only batches here")

    def _keep(self, exchange: Exchange) -> Reply:
        boundary = exchange.headers["content-type"].partition("boundary=")[2].encode()
        parts = [part.partition(b"\r\n\r\n") for part in exchange.data.split(b"--" + boundary)]
        (content,) = [body.removesuffix(b"\r\n") for head, _, body in parts if b'filename="' in head]
        assert any(b'name="purpose"' in head and body.strip() == b"batch" for head, _, body in parts)
        return Reply(self._file(content))

    def _file(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        about = {"object": "file", "created_at": 1, "filename": "f", "purpose": "batch", "status": "processed"}
        return {"id": name, "bytes": len(content), **about}

    def _create(self, asked: dict[str, Any]) -> Reply:
        name = f"batch_{len(self.batches)}"
        ids = [json.loads(line)["custom_id"] for line in self.files[asked["input_file_id"]].splitlines()]
        assert len(ids) == len(set(ids)), "OpenAI refuses ids that are not unique"
        total = len(ids)
        self.batches[name] = {
            "id": name, "object": "batch", "created_at": 1, "status": "in_progress", "output_file_id": None,
            "error_file_id": None, "request_counts": {"total": total, "completed": 0, "failed": 0}, "looks": 0, **asked,
        }  # fmt: skip
        if self.fails_before_answering:
            self.fails_before_answering = False
            return Reply(hang="headers")
        return Reply(self.batches[name])

    def _look(self, name: str) -> Reply:
        if self.failing_looks:
            self.failing_looks -= 1
            return error(503)
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["status"] == "in_progress" and batch["looks"] >= self.looks:
            self._finish(batch)
        return Reply(batch)

    def _finish(self, batch: dict[str, Any]) -> None:
        batch["status"] = self.status
        if self.status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "the file is not to our taste"}]}
            return
        good: list[str] = []
        bad: list[str] = []
        for line in reversed(self.files[batch["input_file_id"]].splitlines()):
            request = json.loads(line)
            found = self.answering(request["body"])
            if found is None:
                continue
            status, body = found
            response = {"status_code": status, "request_id": "r", "body": body}
            record = {"id": "l", "custom_id": request["custom_id"], "response": response, "error": None}
            (good if status < 400 else bad).append(json.dumps(record))
        if good:
            batch["output_file_id"] = self._file("\n".join(good).encode())["id"]
        if bad:
            batch["error_file_id"] = self._file("\n".join(bad).encode())["id"]
