"""One-time codes, and the folder that no one else may enter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rh_agents.web.codes import GOOD_FOR, CodeBox, NotPrivate, private_folder, servers


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_code_is_good_once(tmp_path: Path) -> None:
    box = CodeBox(tmp_path, Clock())
    code = box.issue()
    assert not box.redeem("another")
    assert box.redeem(code)
    assert not box.redeem(code)
    assert list(tmp_path.iterdir()) == []


def test_a_code_is_good_for_ten_minutes(tmp_path: Path) -> None:
    clock = Clock()
    box = CodeBox(tmp_path, clock)
    early, late = box.issue(), box.issue()
    assert GOOD_FOR == 600
    clock.now += 599
    assert box.redeem(early)
    clock.now += 1
    assert not box.redeem(late)


def test_a_code_that_another_process_of_this_user_made_is_good(tmp_path: Path) -> None:
    clock = Clock()
    assert CodeBox(tmp_path, clock).redeem(CodeBox(tmp_path, clock).issue())


def test_codes_that_have_expired_are_removed_when_another_one_is_made(tmp_path: Path) -> None:
    clock = Clock()
    box = CodeBox(tmp_path, clock)
    box.issue()
    clock.now += GOOD_FOR
    box.issue()
    assert len(list(tmp_path.iterdir())) == 1


def test_no_file_has_a_code_in_its_name_or_its_text(tmp_path: Path) -> None:
    code = CodeBox(tmp_path, Clock()).issue()
    (path,) = tmp_path.iterdir()
    assert code not in path.name + path.read_text()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.name == "nt", reason="modes of files are of POSIX")
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = private_folder("8123")
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(NotPrivate, match="chmod 700"):
        private_folder("8123")


@pytest.mark.skipif(os.name == "nt", reason="modes of files are of POSIX")
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    private_folder("1").rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "rh_agents" / "1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotPrivate):
        private_folder("1")


def test_pages_that_run_are_found_by_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    for port, process in (("8001", os.getpid()), ("8002", 2**22 + 1)):
        (private_folder(port) / "process").write_text(str(process))
    private_folder("8003")
    assert servers() == [8001]
