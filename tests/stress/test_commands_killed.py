"""kill -9 of `rh-agents fork`, `erase` and `delete`, and of the page that copies a run: all is there, or nothing."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from tests.services.postgresql import PostgresqlServer
from tests.stress.children import PATIENCE, Child, Children
from tests.stress.commands import COPIES, NEW, PLAN, REMOVALS, Case, Kill, PageCase, after, prepared
from tests.stress.sizes import rounds
from tests.stress.traced import CHANGES, count_calls, traced
from tests.stress.trial import Trial
from tests.stress.work import Plan

SEED = 20291
SHORT: Plan = {**PLAN, "pages": 48}
COMMANDS = COPIES | REMOVALS

Judge = Callable[[Case, bool], Iterator[str]]


def judge_of(peaceful: Case) -> Judge:
    """Judges what is left, knowing a case in which the command was given and nobody was killed."""
    verb = peaceful.words[0]
    if verb in REMOVALS:
        left_of = {"erase": Case.left_of_erased, "delete": Case.left_of_deleted}[verb]
        return lambda case, claims: left_of(case, claims=claims)
    expected = peaceful.copy()
    return lambda case, claims: case.left_of_copy(expected, claims=claims)


def play(case: Case, kill: Kill, judge: Judge, where: str) -> bool:
    """One round; returns whether the command was killed. The run is thrown away if nothing is wrong with it."""
    claims = case.killed(kill)
    found = list(judge(case, claims))
    assert found == [], f"{where}, in {case.trial.folder}"
    return case.was_killed


def play_rounds(name: str, rounds: int, children: Children, folder: Path, plan: Plan = PLAN) -> None:
    """Kill a command at moments by the clock, each time in a copy of one database."""
    template = prepared(Trial(children, folder / "template", plan))
    peaceful = Case(template.copy(folder / "peaceful"), COMMANDS[name])
    seconds, chance, killed = peaceful.undisturbed(), random.Random(f"{SEED} {name}"), 0
    judge = judge_of(peaceful)
    for number in range(rounds):
        case = Case(template.copy(folder / f"{number}"), peaceful.words)
        killed += play(case, after(chance.uniform(0, seconds)), judge, f"{name}, round {number}")
        shutil.rmtree(case.trial.folder)
    assert killed >= rounds // 3, "most kills came too late"


@pytest.mark.parametrize("name", ["fork with an edited result", "delete"])
def test_a_command_that_is_killed_leaves_no_half(name: str, children: Children, tmp_path: Path) -> None:
    play_rounds(name, 1, children, tmp_path, SHORT)


@rounds(slow=4, full=40)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_can_be_killed_at_any_moment_and_be_given_again(
    name: str, rounds: int, children: Children, tmp_path: Path
) -> None:
    play_rounds(name, rounds, children, tmp_path)


@rounds(slow=5, full=60)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_can_be_killed_at_any_system_call(name: str, rounds: int, children: Children, tmp_path: Path) -> None:
    template = prepared(Trial(children, tmp_path / "template", PLAN), has_copy=name != "erase")
    peaceful, trace = Case(template.copy(tmp_path / "peaceful"), COMMANDS[name]), tmp_path / "trace"
    assert peaceful.killed(lambda child: trace_calls(child, trace))
    judge = judge_of(peaceful)
    every = [(call, when) for call, count in count_calls(trace).items() for when in range(1, count + 1)]
    killed = 0
    for number, (call, when) in enumerate(random.Random(f"{SEED} {name}").choices(every, k=rounds)):
        case = Case(template.copy(tmp_path / f"{number}"), peaceful.words)
        killed += play(case, at_call(call, when), judge, f"{name}, {call} number {when}")
        if name == "erase":
            assert with_contents(case.trial) == []
        shutil.rmtree(case.trial.folder)
    assert killed >= rounds // 2


def trace_calls(child: Child, trace: Path, calls: Iterable[str] = CHANGES) -> None:
    """Let it live, and write down its system calls."""
    with traced(child, "-o", trace, "-e", f"trace={','.join(f'?{call}' for call in calls)}"):
        pass


def at_call(call: str, when: int) -> Kill:
    """Kill it as it makes this system call for that many-th time."""

    def kill(child: Child) -> None:
        with traced(child, "-o", "/dev/null", "-e", f"inject={call}:signal=SIGKILL:when={when}"):
            pass

    return kill


def with_contents(trial: Trial) -> list[str]:
    """The files of the store in which something stands that a call has returned."""
    files = [path for path in trial.folder.glob("runs*/**/*") if path.is_file()] + list(trial.folder.glob("runs.db*"))
    return [path.name for path in files if path.is_file() and b"nonce" in path.read_bytes()]


@rounds(short=1, full=60)
def test_a_page_that_is_killed_while_it_copies_leaves_no_half(rounds: int, children: Children, tmp_path: Path) -> None:
    template = prepared(Trial(children, tmp_path / "template", {**PLAN, "pages": 24}), has_copy=False)
    peaceful = PageCase(template.copy(tmp_path / "peaceful"), ("fork",))
    seconds, chance, killed = peaceful.undisturbed(), random.Random(SEED), 0
    judge = judge_of(peaceful)
    for number in range(rounds):
        case = PageCase(template.copy(tmp_path / f"{number}"), ("fork",), chance.uniform(0, seconds))
        killed += play(case, after(0), judge, f"round {number}")
        shutil.rmtree(case.trial.folder)
    assert killed >= rounds // 3, "most kills came too late"


# -- PostgreSQL: a database cannot be copied, and what a client began may end after its death -------------------------


@rounds(slow=4, full=40)
@pytest.mark.parametrize("name", COPIES)
def test_who_copies_a_run_in_postgresql_can_be_killed_at_any_message(
    name: str,
    rounds: int,
    postgresql_server: PostgresqlServer,
    postgresql_url: str,
    children: Children,
    tmp_path: Path,
) -> None:
    trial = prepared(Trial(children, tmp_path / "copies", PLAN, postgresql_url))
    peaceful = Case(trial, COMMANDS[name])
    messages = count_messages(peaceful, tmp_path)
    judge, killed = judge_of(peaceful), 0
    for number in range(rounds):
        assert Case(trial, ("delete", NEW, "--yes")).again() == ""
        when = later(number, rounds, messages)
        case, kill = Case(trial, peaceful.words), noticed(at_call("sendto", when), postgresql_server)
        killed += play(case, kill, judge, f"{name}, message {when} of {messages}")
    assert killed >= rounds // 2


@rounds(slow=4, full=40)
@pytest.mark.parametrize("name", REMOVALS)
def test_who_removes_a_run_in_postgresql_can_be_killed_at_any_message(
    name: str, rounds: int, postgresql_server: PostgresqlServer, children: Children, tmp_path: Path
) -> None:
    messages, killed = 0, 0
    for number in range(rounds + 1):
        schema = f"{name.split()[0]}{number}"
        trial = prepared(Trial(children, tmp_path / schema, PLAN, postgresql_server.url(schema=schema)))
        case = Case(trial, COMMANDS[name])
        if number == 0:
            messages = count_messages(case, tmp_path)
        else:
            when = later(number - 1, rounds, messages)
            kill = noticed(at_call("sendto", when), postgresql_server)
            killed += play(case, kill, judge_of(case), f"{name}, message {when} of {messages}")
        postgresql_server.execute(f"DROP SCHEMA {schema} CASCADE")
    assert killed >= rounds // 2


def count_messages(case: Case, folder: Path) -> int:
    """Give a command, and let it live: how many messages it sends to the server in one thread."""
    trace = folder / "trace"
    assert case.killed(lambda child: trace_calls(child, trace, ("sendto",)))
    return count_calls(trace)["sendto"]


def later(number: int, rounds: int, messages: int) -> int:
    """Which message is not sent any more: evenly, but for the first quarter, which connects and reads."""
    first = messages // 4
    return first + 1 + number * (messages - first) // rounds


def noticed(kill: Kill, server: PostgresqlServer) -> Kill:
    """Wait until the server has ended what the killed one had begun: until then it may still be committed."""
    clients = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    before = set(server.execute(clients))  # those of other tests

    def kill_and_wait(child: Child) -> None:
        kill(child)
        child.wait()
        deadline = time.monotonic() + PATIENCE
        while set(server.execute(clients)) - before:
            assert time.monotonic() < deadline, "the server does not notice that a client is dead"
            time.sleep(0.01)

    return kill_and_wait
