"""Artifacts at any URL that fsspec knows: object stores and remote file systems. Needs the extra `fsspec`."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from rh_agents.core.errors import StoreError
from rh_agents.stores.artifacts import StoredArtifact, checked_digest, expect_size, missing, verified

__all__ = ["FsspecArtifacts"]


class FsspecArtifacts:
    """Artifacts as files of an fsspec file system. They are as durable as a finished write is there.

    There are no locks here: while garbage is collected, what is put is spared only because it is young. So let
    `min_age` be much longer than any transaction takes.

    Args:
        url: the directory, for instance `s3://bucket/runs`.

    Raises:
        StoreError: the URL cannot be used, or a package is missing.
    """

    def __init__(self, url: str) -> None:
        if any(each in url for each in "*?["):
            raise StoreError(f"the artifacts' URL {url!r} has one of * ? [ in it, which fsspec takes for a pattern")
        self.url: str = url
        self._files, self._root = _file_system(url)

    def __repr__(self) -> str:
        return f"FsspecArtifacts({self.url!r})"

    def put(self, data: bytes) -> str:
        """Write the bytes under a temporary name, move them to their place, and return their digest.

        They are written even if they are there: not every file system can renew the time of a file.

        Raises:
            StoreError: they could not be written.
        """
        digest = sha256(data).hexdigest()
        path = self._path(digest)
        temporary = f"{self._root}/{digest[:2]}/.{digest}.{secrets.token_hex(8)}.tmp"
        with self._errors("could not be written", path):
            self._files.makedirs(f"{self._root}/{digest[:2]}", exist_ok=True)
            self._files.pipe_file(temporary, data)
            self._files.mv(temporary, path)
        return digest

    def get(self, digest: str, *, size: int | None = None) -> bytes:
        """The bytes with this digest.

        Raises:
            StoreError: they are missing, damaged or not readable, or there are not `size` of them.
        """
        path = self._path(checked_digest(digest))
        with self._errors("could not be read", path):
            try:
                if size is not None:
                    expect_size(int(self._files.size(path) or 0), size, self._readable(path))
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError as error:
                raise missing(self._readable(path)) from error
        return verified(data, digest, self._readable(path))

    def digests(self) -> Iterator[StoredArtifact]:
        """All artifacts, in no particular order; files that are none are left out.

        Raises:
            StoreError: they cannot be listed.
        """
        with self._errors("could not be listed", self._root):
            found = self._find()
        for path, about in found.items():
            name = path.rsplit("/", 1)[-1]
            if len(name) == 64 and path.endswith(f"/{name[:2]}/{name}"):
                with self._errors("could not be looked at", path):
                    put_at = self._put_at(path)
                if put_at is not None:
                    yield StoredArtifact(checked_digest(name), int(about["size"] or 0), put_at)

    def delete(self, digest: str, *, put_before: float) -> int:
        """Delete an artifact, unless it has been put since `put_before`; returns the bytes freed.

        Raises:
            StoreError: it cannot be deleted, or the digest is none.
        """
        path = self._path(checked_digest(digest))
        with self._errors("could not be deleted", path):
            return self._delete_if_older(path, put_before)

    def clean(self, *, put_before: float) -> int:
        """Delete what interrupted writes left before `put_before`; returns the bytes freed.

        Raises:
            StoreError: they cannot be listed or deleted.
        """
        with self._errors("could not be cleaned", self._root):
            left = [path for path in self._find() if path.endswith(".tmp")]
            return sum(self._delete_if_older(path, put_before) for path in left)

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"

    def _readable(self, path: str) -> str:
        return str(self._files.unstrip_protocol(path))

    def _find(self) -> dict[str, dict[str, Any]]:
        self._files.invalidate_cache()
        found: dict[str, dict[str, Any]] = self._files.find(self._root, detail=True)
        return found

    def _put_at(self, path: str) -> float | None:
        """Seconds since 1970; None if there is no such file any more."""
        try:
            return float(self._files.modified(path).timestamp())
        except FileNotFoundError:
            return None

    def _delete_if_older(self, path: str, put_before: float) -> int:
        self._files.invalidate_cache()
        put_at = self._put_at(path)
        if put_at is None or put_at > put_before:
            return 0
        size = int(self._files.size(path) or 0)
        self._files.rm_file(path)
        return size

    @contextmanager
    def _errors(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # each file system has errors of its own, of any kind: this is where they end
            place = self._readable(path)
            raise StoreError(f"the artifact {place} {what}: {type(error).__name__}: {error}") from error


def _file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "fsspec":
            raise
        message = f"artifacts at {url} need fsspec: pip install 'rh_agents[fsspec]', or give the path of a directory"
        raise StoreError(message) from error
    try:
        files, root = url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:  # a package or a protocol that is not there
        raise StoreError(f"the artifacts' URL {url!r} cannot be used: {error}") from error
    return files, str(root).rstrip("/")
