"""`rh-agents web`: the command around the page."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

import pytest

from rh_agents import open_store
from rh_agents.cli import main
from tests.surfaces.web_kit import recorded


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Codes and stores of the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record() -> None:
    async def work() -> None:
        store = open_store("runs.db")
        await recorded(store)
        await store.aclose()

    asyncio.run(work())


def test_a_store_that_is_not_there_is_not_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--store", "nothing.db"]) == 2
    assert "there is no store nothing.db" in capsys.readouterr().err
    assert not Path("nothing.db").exists()


def test_an_export_writes_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    record()
    assert main(["web", "--store", "runs.db", "--export", "monday", "-o", "out.html"]) == 0
    assert capsys.readouterr().out.startswith("out.html: ")
    assert "broken is not there" in Path("out.html").read_text(encoding="utf-8")
    assert main(["web", "--store", "runs.db", "--export", "mondya", "-o", "x.html"]) == 2
    assert "did you mean 'monday'" in capsys.readouterr().err
    assert main(["web", "--export", "monday"]) == 2
    assert "belong together" in capsys.readouterr().err


def test_the_file_and_the_address_are_objects_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    record()
    assert main(["web", "--store", "runs.db", "--export", "monday", "-o", "out.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": "rh-agents/web-export/1",
        "run_id": "monday",
        "file": "out.html",
        "bytes": Path("out.html").stat().st_size,
        "has_content": True,
    }
    assert main(["web", "--new-code", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "usage"


def test_a_new_code_is_for_a_page_that_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["web", "--new-code"]) == 2
    assert "no page of this user is running" in capsys.readouterr().err


def opened(address: str) -> int:
    """The status that a browser gets which opens an address and then the page."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    try:
        browser.open(address, timeout=30).read()
        with browser.open(address.partition("?")[0], timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_the_printed_address_opens_the_page_once_and_a_new_code_again_until_the_command_is_asked_to_end() -> None:
    record()
    command = [sys.executable, "-m", "rh_agents", "web", "--store", "runs.db"]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        schema, address = json.loads(process.stdout.readline()).values()
        assert schema == "rh-agents/web/1"
        assert address.startswith("http://127.0.0.1:")
        assert [opened(address), opened(address)] == [200, 401]
        renewed = subprocess.run(
            [*command[:4], "--new-code"], capture_output=True, text=True, check=True
        ).stdout.strip()
        assert renewed.partition("?")[0] == address.partition("?")[0]
        assert opened(renewed) == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are of POSIX")
def test_another_address_than_loopback_is_warned_of() -> None:
    record()
    command = [sys.executable, "-m", "rh_agents", "web", "--store", "runs.db", "--host", "0.0.0.0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert "can be reached by others" in said
