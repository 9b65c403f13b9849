"""Artifacts by where they are: a path or a URL."""

from __future__ import annotations

from urllib.parse import unquote

from rh_agents.stores._files import FILE_MODE
from rh_agents.stores.artifacts import ArtifactStore, FileArtifacts


def open_artifacts(where: str, *, file_mode: int = FILE_MODE) -> ArtifactStore:
    """The artifacts in a directory, given as a path or as a `file://` URL, or at any other URL that fsspec knows.

    Args:
        where: the place.
        file_mode: the permissions of files that are made in a directory.

    Raises:
        StoreError: the URL cannot be used, for instance because a package is missing.
    """
    if "://" not in where:
        return FileArtifacts(where, file_mode=file_mode)
    if where.startswith("file://"):
        return FileArtifacts(unquote(where.removeprefix("file://")), file_mode=file_mode)
    from rh_agents.stores.fsspec_artifacts import FsspecArtifacts  # noqa: PLC0415 - it needs an optional package

    return FsspecArtifacts(where)
