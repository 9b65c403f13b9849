"""Artifacts: what `put` has returned survives, what is damaged is seen, and what is in use is never swept away."""

from __future__ import annotations

import errno
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rh_agents.core.errors import StoreError
from rh_agents.stores._opening_artifacts import open_artifacts
from rh_agents.stores.artifacts import ArtifactStore, FileArtifacts, checked_digest, sweep
from rh_agents.stores.fsspec_artifacts import FsspecArtifacts

fcntl = pytest.importorskip("fcntl", reason="there are no locks here")

DATA = b"a page \0\xff" * 1000
DIGEST = sha256(DATA).hexdigest()
OTHER = sha256(b"other").hexdigest()
NOT_DIGESTS = [
    "", "ab", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST[:-1] + "g", DIGEST + "\n", "../" + DIGEST[3:],
    "/" + DIGEST[1:], DIGEST[:2] + "/" + DIGEST[3:], "\0" * 64, "٣" * 64,
]  # fmt: skip


class PowerCut(BaseException):
    """Nothing is done after it."""


@pytest.fixture(params=["directory", "memory://", "file://"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    if request.param == "directory":
        yield FileArtifacts(tmp_path / "some" / "artifacts")
        return
    fsspec = pytest.importorskip("fsspec", reason="pip install 'rh_agents[fsspec]'")
    name = f"artifacts {uuid.uuid4().hex}"
    yield FsspecArtifacts(f"file://{tmp_path / name}" if request.param == "file://" else f"memory://{name}")
    if request.param == "memory://":
        files = fsspec.filesystem("memory")
        if files.exists(name):
            files.rm(name, recursive=True)


def all_of(artifacts: ArtifactStore) -> dict[str, int]:
    return {each.digest: each.size for each in artifacts.digests()}


def nothing_used(_: object) -> list[str]:
    return []


# -- every kind of place ----------------------------------------------------------------------------------------------


def test_what_is_put_is_there_under_its_digest(artifacts: ArtifactStore) -> None:
    assert all_of(artifacts) == {}
    for data in (DATA, b"", b"\0", os.urandom(1_000_000)):
        digest = artifacts.put(data)
        assert digest == sha256(data).hexdigest()
        assert artifacts.get(digest) == data
    assert sorted(all_of(artifacts).values()) == [0, 1, len(DATA), 1_000_000]


def test_equal_data_is_kept_once(artifacts: ArtifactStore) -> None:
    assert {artifacts.put(DATA) for _ in range(3)} == {DIGEST}
    assert all_of(artifacts) == {DIGEST: len(DATA)}


def test_many_threads_may_put_the_same_and_different_data(artifacts: ArtifactStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        digests = list(threads.map(lambda number: artifacts.put(b"%d" % (number % 10)), range(100)))
    assert len(set(digests)) == 10
    assert all_of(artifacts) == dict.fromkeys(set(digests), 1)
    assert sweep(artifacts, nothing_used, 3600.0) == 0


@pytest.mark.parametrize("text", NOT_DIGESTS)
def test_what_is_no_digest_names_no_artifact(artifacts: ArtifactStore, text: str) -> None:
    artifacts.put(DATA)
    with pytest.raises(StoreError, match="is not a SHA-256 digest"):
        artifacts.get(text)
    with pytest.raises(StoreError, match="is not a SHA-256 digest"):
        artifacts.delete(text, put_before=time.time())
    with pytest.raises(StoreError, match="is not a SHA-256 digest"):
        checked_digest(text)
    assert all_of(artifacts) == {DIGEST: len(DATA)}


def test_what_is_missing_is_told_with_its_place_and_what_to_do(artifacts: ArtifactStore) -> None:
    with pytest.raises(StoreError, match=rf"{OTHER} is missing.*backup.*made again"):
        artifacts.get(OTHER)
    assert artifacts.delete(OTHER, put_before=time.time()) == 0


def test_what_is_deleted_is_gone_and_can_be_put_again(artifacts: ArtifactStore) -> None:
    artifacts.put(DATA)
    artifacts.put(b"other")
    assert artifacts.delete(DIGEST, put_before=time.time() + 1) == len(DATA)
    assert all_of(artifacts) == {OTHER: 5}
    with pytest.raises(StoreError, match="is missing"):
        artifacts.get(DIGEST)
    assert artifacts.put(DATA) == DIGEST
    assert artifacts.get(DIGEST) == DATA


def test_what_was_put_since_is_not_deleted(artifacts: ArtifactStore) -> None:
    before = time.time() - 1
    artifacts.put(DATA)
    assert artifacts.delete(DIGEST, put_before=before) == 0
    assert artifacts.get(DIGEST) == DATA
    (found,) = artifacts.digests()
    assert before < found.put_at <= time.time() + 1
    assert found.age < 1


def test_a_sweep_deletes_what_is_neither_used_nor_young(artifacts: ArtifactStore) -> None:
    artifacts.put(DATA)
    artifacts.put(b"other")
    asked: list[set[str]] = []

    def used(digests: object) -> set[str]:
        asked.append(set(digests))  # type: ignore[call-overload]
        return {OTHER, "something else"}

    assert sweep(artifacts, used, 3600.0) == 0
    assert asked == [], "nobody is asked about what is young"
    assert sweep(artifacts, used, 0.0) == len(DATA)
    assert asked == [{DIGEST, OTHER}]
    assert all_of(artifacts) == {OTHER: 5}


def test_a_sweep_spares_what_is_put_while_it_is_under_way(artifacts: ArtifactStore) -> None:
    artifacts.put(DATA)

    def used(_: object) -> list[str]:
        artifacts.put(DATA)  # by a run that will refer to it in a moment
        return []

    assert sweep(artifacts, used, 0.0) == 0
    assert artifacts.get(DIGEST) == DATA


def test_a_url_or_a_path_says_where_artifacts_are_kept(tmp_path: Path) -> None:
    for where in (str(tmp_path / "a b"), f"file://{tmp_path}/a%20b"):
        opened = open_artifacts(where)
        assert isinstance(opened, FileArtifacts)
        assert opened.directory == tmp_path / "a b"
    pytest.importorskip("fsspec", reason="pip install 'rh_agents[fsspec]'")
    assert isinstance(open_artifacts("memory://somewhere"), FsspecArtifacts)


# -- files: in the order that survives a power cut --------------------------------------------------------------------


class Disk:
    """Writes down what the system is asked to do, in its order; and cuts the power before one of these."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.done: list[str] = []
        self.power_until: int | None = None
        self.errors: dict[str, OSError] = {}
        self._wrap(monkeypatch, "fsync", lambda fd: f"sync {self.name(os.readlink(f'/proc/self/fd/{fd}'))}")
        self._wrap(monkeypatch, "replace", lambda old, new: f"rename {self.name(old)} to {self.name(new)}")
        self._wrap(monkeypatch, "mkdir", lambda path, *_: f"mkdir {self.name(path)}")

    def name(self, path: object) -> str:
        text = os.path.relpath(str(path), self.root).replace(DIGEST, "DIGEST")
        return re.sub(r"\.DIGEST\.\w+\.tmp", "TEMPORARY", text)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, function: str, describe: Callable[..., str]) -> None:
        real = getattr(os, function)

        def wrapped(*args: object) -> object:
            what = describe(*args)
            if self.power_until is not None and len(self.done) >= self.power_until:
                raise PowerCut
            if what in self.errors:
                raise self.errors[what]
            self.done.append(what)
            return real(*args)

        monkeypatch.setattr(os, function, wrapped)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is synced")
    return Disk(monkeypatch, tmp_path)


FAN = DIGEST[:2]


def test_a_file_is_on_disk_before_its_name_is_and_the_name_before_put_returns(disk: Disk, tmp_path: Path) -> None:
    FileArtifacts(tmp_path / "a" / "b").put(DATA)
    assert disk.done == [
        "sync ..",
        "mkdir a",
        "sync .",
        "mkdir a/b",
        "sync a",
        f"mkdir a/b/{FAN}",
        "sync a/b",
        f"sync a/b/{FAN}/TEMPORARY",
        f"rename a/b/{FAN}/TEMPORARY to a/b/{FAN}/DIGEST",
        f"sync a/b/{FAN}",
    ]


def test_a_directory_is_made_durable_once(disk: Disk, tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put(DATA)
    artifacts.delete(DIGEST, put_before=time.time() + 1)
    disk.done.clear()
    artifacts.put(DATA)
    assert disk.done == [f"sync {FAN}/TEMPORARY", f"rename {FAN}/TEMPORARY to {FAN}/DIGEST", f"sync {FAN}"]


def test_a_name_that_an_earlier_writer_left_is_synced_before_it_is_relied_on(disk: Disk, tmp_path: Path) -> None:
    FileArtifacts(tmp_path).put(DATA)
    disk.done.clear()
    artifacts = FileArtifacts(tmp_path)
    for expected in (["sync .", f"sync {FAN}"], [f"sync {FAN}"]):
        artifacts.put(DATA)
        assert disk.done == expected
        disk.done.clear()


def test_after_a_crash_at_any_step_the_next_put_makes_it_good(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileArtifacts(tmp_path / "whole" / "a").put(DATA)
    steps = len(disk.done)
    assert steps > 5
    for step in range(steps):
        directory = tmp_path / str(step) / "a"
        disk.done.clear()
        disk.power_until = step
        with monkeypatch.context() as dead, pytest.raises(PowerCut):
            dead.setattr(Path, "unlink", lambda _: None)  # who is dead cleans nothing up
            FileArtifacts(directory).put(DATA)
        disk.power_until = None
        left = list(directory.rglob("*.tmp"))
        disk.done.clear()
        artifacts = FileArtifacts(directory)
        artifacts.put(DATA)
        assert artifacts.get(DIGEST) == DATA
        assert disk.done[-1] == f"sync {step}/a/{FAN}"
        assert f"sync {step}/a" in disk.done, "the name of the sub-directory"
        assert artifacts.clean(put_before=time.time() + 1) == sum(len(DATA) for _ in left)
        assert list(directory.rglob("*.tmp")) == []
        assert all_of(artifacts) == {DIGEST: len(DATA)}


def test_left_over_files_are_swept_up_once_they_are_old(tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put(DATA)
    left = tmp_path / FAN / f".{DIGEST}.0123.tmp"
    left.write_bytes(b"half")
    assert all_of(artifacts) == {DIGEST: len(DATA)}
    assert sweep(artifacts, lambda _: [DIGEST], 3600.0) == 0
    assert sweep(artifacts, lambda _: [DIGEST], 0.0) == 4
    assert not left.exists()
    assert artifacts.get(DIGEST) == DATA


def test_files_that_are_no_artifacts_are_left_alone(tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put(DATA)
    strangers = [
        tmp_path / "notes.txt",
        tmp_path / "ab" / "notes.txt",
        tmp_path / "ab" / DIGEST,
        tmp_path / "xyz" / DIGEST,
    ]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert all_of(artifacts) == {DIGEST: len(DATA)}
    assert sweep(artifacts, nothing_used, 0.0) == len(DATA)
    assert all(path.exists() for path in strangers)


def test_nobody_can_delete_while_somebody_writes(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put(DATA)
    tried = []

    def sync(_: int) -> None:
        descriptor = os.open(tmp_path / FAN, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # others may write
            tried.append(descriptor)
        finally:
            os.close(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    artifacts.put(DATA)
    assert len(tried) == 1
    artifacts.delete(DIGEST, put_before=time.time() + 1)
    artifacts.put(DATA)
    assert len(tried) == 3, "while the content is synced, and while the name is"


# -- files: damage and errors -----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(DATA) - 1), change=st.integers(1, 255), cut=st.booleans())
def test_damage_is_seen_and_mended_by_the_next_put(tmp_path: Path, place: int, change: int, cut: bool) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put(DATA)
    path = tmp_path / FAN / DIGEST
    path.write_bytes(DATA[:place] + (b"" if cut else bytes([DATA[place] ^ change]) + DATA[place + 1 :]))
    with pytest.raises(StoreError, match=rf"{path} is damaged.*backup.*made again"):
        artifacts.get(DIGEST)
    artifacts.put(DATA)
    assert artifacts.get(DIGEST) == DATA


def test_a_file_that_could_not_be_synced_leaves_nothing_behind(disk: Disk, tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    for number in (errno.EIO, errno.ENOSPC):
        disk.errors = {f"sync {FAN}/TEMPORARY": OSError(number, os.strerror(number))}
        with pytest.raises(StoreError, match=rf"{DIGEST} could not be written: .*{os.strerror(number)}") as caught:
            artifacts.put(DATA)
        assert isinstance(caught.value.__cause__, OSError)
        assert list((tmp_path / FAN).iterdir()) == []
    disk.errors = {}
    assert artifacts.get(artifacts.put(DATA)) == DATA


def test_after_a_directory_could_not_be_synced_nothing_is_acknowledged(disk: Disk, tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    disk.errors = {f"sync {FAN}": OSError(errno.EIO, "I/O error")}
    with pytest.raises(StoreError, match=rf"{tmp_path / FAN} could not be synced: .*I/O error"):
        artifacts.put(DATA)
    disk.errors = {}  # the system tells of a lost write only once
    for data in (DATA, b"other"):
        with pytest.raises(StoreError, match="could not be synced"):
            artifacts.put(data)


def test_a_file_system_that_cannot_sync_directories_can_be_used(disk: Disk, tmp_path: Path) -> None:
    disk.errors = {f"sync {FAN}": OSError(errno.EINVAL, "invalid argument")}
    artifacts = FileArtifacts(tmp_path)
    assert artifacts.get(artifacts.put(DATA)) == DATA


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    artifacts = FileArtifacts(tmp_path / "file" / "artifacts")
    for use in (
        lambda: artifacts.put(DATA),
        lambda: artifacts.get(DIGEST),
        lambda: list(artifacts.digests()),
        lambda: artifacts.delete(DIGEST, put_before=time.time()),
        lambda: artifacts.clean(put_before=time.time()),
    ):
        with pytest.raises(StoreError, match=str(tmp_path / "file")):
            use()


# -- fsspec -----------------------------------------------------------------------------------------------------------


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsspec", "fsspec.core"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(StoreError, match=re.escape("pip install 'rh_agents[fsspec]'")):
        open_artifacts("memory://somewhere")


@pytest.mark.parametrize("url", ["nosuchprotocol://x", "memory://a*b", "memory://a[b"])
def test_a_url_that_cannot_be_used_is_told(url: str) -> None:
    pytest.importorskip("fsspec", reason="pip install 'rh_agents[fsspec]'")
    with pytest.raises(StoreError, match=re.escape(url)):
        open_artifacts(url)


def test_errors_of_a_remote_file_system_become_store_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory", reason="pip install 'rh_agents[fsspec]'")
    artifacts = open_artifacts(f"memory://{uuid.uuid4().hex}")
    artifacts.put(DATA)

    class Denied(Exception):
        pass

    def deny(*_: object, **__: object) -> None:
        raise Denied("no credentials")

    for name in ("pipe_file", "cat_file", "find", "modified"):
        monkeypatch.setattr(memory.MemoryFileSystem, name, deny)
    for use in (
        lambda: artifacts.put(DATA),
        lambda: artifacts.get(DIGEST),
        lambda: list(artifacts.digests()),
        lambda: artifacts.delete(DIGEST, put_before=time.time()),
        lambda: artifacts.clean(put_before=time.time()),
    ):
        with pytest.raises(StoreError, match="Denied: no credentials") as caught:
            use()
        assert isinstance(caught.value.__cause__, Denied)


def test_damage_at_a_url_is_seen_and_left_overs_are_swept_up() -> None:
    fsspec = pytest.importorskip("fsspec", reason="pip install 'rh_agents[fsspec]'")
    root = f"memory://{uuid.uuid4().hex}"
    artifacts = open_artifacts(root)
    artifacts.put(DATA)
    with fsspec.open(f"{root}/{FAN}/{DIGEST}", "wb") as file:
        file.write(DATA[:-1])
    with pytest.raises(StoreError, match=f"{DIGEST} is damaged"):
        artifacts.get(DIGEST)
    with fsspec.open(f"{root}/{FAN}/.{DIGEST}.0123.tmp", "wb") as file:
        file.write(b"half")
    assert sweep(artifacts, lambda _: [DIGEST], 0.0) == 4
    assert all_of(artifacts) == {DIGEST: len(DATA) - 1}
