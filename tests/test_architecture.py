"""The house is as its plan says: layers, public names, imports, and the paths that the documents name."""

import ast
import functools
import graphlib
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rh_agents

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rh_agents"
OPTIONAL = {
    "typer", "click", "anthropic", "openai", "httpx2", "xllamacpp", "psycopg", "psycopg_pool",
    "fsspec", "mcp", "numpy", "agents", "langchain_core", "langgraph", "pydantic_ai", "pytest", "hypothesis",
    "starlette", "uvicorn", "ray", "opentelemetry", "pandas", "polars", "pyarrow",
    "openpyxl",
}  # fmt: skip
LATE = {"rich", "anyio", "apsw", "jsonschema"}
"""Base dependencies that cost time, so that only who needs them imports them."""

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "rh_agents.")
    if not any(part.startswith("_") for part in module.name.split("."))
)

PURE = [
    "_base", "_replay", "actors", "errors", "events", "groups", "history", "metrics", "plan", "policies", "redaction",
    "results", "tracking", "types", "usage", "values",
]  # fmt: skip
"""Modules and packages of the core."""
CORE = PACKAGE / "core"
MOST_IN_CORE, MOST_IN_A_PACKAGE = 30, 12
MOST_LINES = 600
TOO_LARGE: dict[str, int] = {}
"""Modules that may not grow; each is to be cut where the thought changes."""
LONGEST_CHAIN, LONGEST_IN_CORE = 27, 23
"""Modules that import each other one after the other, from the command line down and from the top of the core."""
MOST_ON_THE_WAY = 10
"""Files that somebody opens who reads a call from the decorator to the disk."""

IMPORT_PATHS = {
    "rh_agents.core.parallel": (
        "GroupStatus ErrorStrategy ParallelDisplayMode ParallelEventGroup ParallelGroupTracker ParallelExecutionManager"
    ),
    "rh_agents.core.execution": "ExecutionState EventBus HistorySet",
    "rh_agents.core.events": "ExecutionEvent ExecutionResult",
    "rh_agents.core.types": "EventType ExecutionStatus",
    "rh_agents.core.actors": "BaseActor Tool LLM Agent ToolSet",
    "rh_agents.bus_handlers": "EventPrinter ParallelEventPrinter EventStreamer",
    "rh_agents": "agent llm parallel run tool current ExecutionState MemoryStore open_store",
}


def load(name: str) -> ModuleType:
    """Import a module of the package; skip the test if it needs an extra that is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OPTIONAL:
            pytest.skip(f"{name} needs {error.name}")
        raise


def imports_of(path: Path) -> set[str]:
    """The top-level packages that a module imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.split(".")[0] for module in modules}


def in_a_new_interpreter(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- public names -----------------------------------------------------------------------------------------------------


def test_the_list_of_modules_is_not_empty() -> None:
    assert {"rh_agents.core.parallel", "rh_agents.stores.memory", "rh_agents.decorators"} <= set(MODULES)


@pytest.mark.parametrize("name", ["rh_agents", *MODULES])
def test_every_module_names_what_is_public_in_it_and_all_of_it_exists(name: str) -> None:
    module = load(name)
    tree = ast.parse(inspect.getsource(module))
    has_definitions = any(not isinstance(node, ast.Expr) for node in tree.body)
    public = getattr(module, "__all__", None)
    assert public is not None or not has_definitions, f"{name} has no __all__"
    missing = [each for each in public or () if not hasattr(module, each)]
    assert missing == []
    assert len(set(public or ())) == len(public or ())


# Used by other modules of the library, and no promise to users.
INTERNAL = {
    "rh_agents.core.actors": {"Check"},
    "rh_agents.core.bus": {"Event"},
    "rh_agents.core.calls": {"default_run", "set_default_run"},
    "rh_agents.core.metrics": {"RunCounter", "html_of_run"},
    "rh_agents.core.results": {"ResultCounts", "failure", "success", "trusted"},
    "rh_agents.core._replay.identity": {"Claimant"},
    "rh_agents.core.redaction": {"Registered"},
    "rh_agents.core._run.frame": {"OwnCalls"},
    "rh_agents.decorators": {"arguments_of", "flow_name", "is_missing", "name_of", "signature_of", "submission_of"},
    "rh_agents.core._limits.interruption": {"Interruption"},
    "rh_agents.core.policies.limits": {"need_of"},
}


def defined_in(module: ModuleType) -> set[str]:
    """The public functions and classes that a module defines itself."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_defines_without_an_underscore_is_in_its_list_of_public_names(name: str) -> None:
    module = load(name)
    unlisted = defined_in(module) - set(getattr(module, "__all__", ())) - INTERNAL.get(name, set())
    assert unlisted == set()


def owners_of_docstrings() -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for name in ["rh_agents", *MODULES]:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        found[name] = module
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isclass(value) or inspect.isfunction(value):
                found[f"{value.__module__}.{public}"] = value
    return list(found.items())


def undocumented_members(owner: type) -> list[str]:
    members = (
        (name, member.fget if isinstance(member, property) else getattr(member, "__func__", member))
        for name, member in vars(owner).items()
        if not name.startswith("_")
    )
    return [name for name, member in members if inspect.isfunction(member) and not member.__doc__]


def test_every_public_module_class_function_and_method_says_what_it_is_for() -> None:
    undocumented = [name for name, value in owners_of_docstrings() if not value.__doc__]
    for name, value in owners_of_docstrings():
        if inspect.isclass(value):
            undocumented += [f"{name}.{member}" for member in undocumented_members(value)]
    assert undocumented == []


@pytest.mark.parametrize("name", IMPORT_PATHS)
def test_what_users_import_is_where_they_import_it(name: str) -> None:
    module = load(name)
    wanted = set(IMPORT_PATHS[name].split())
    assert wanted <= set(vars(module))
    assert wanted <= set(module.__all__), "so that `import *` gives it too"


# -- imports ----------------------------------------------------------------------------------------------------------


def test_importing_the_library_imports_nothing_optional_and_nothing_heavy() -> None:
    code = "import sys, rh_agents; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(in_a_new_interpreter(code).split())
    assert loaded & (OPTIONAL | LATE) == set()
    assert "pydantic" in loaded


def test_a_run_of_coroutine_functions_needs_neither_threads_nor_terminal() -> None:
    code = (
        "import sys, rh_agents\n"
        "@rh_agents.tool\n"
        "async def double(number): return number * 2\n"
        "print(rh_agents.run_sync(double, 2))\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    value, loaded = in_a_new_interpreter(code).splitlines()
    assert value == "4"
    assert set(loaded.split()) & (OPTIONAL | LATE) == set()


@pytest.mark.parametrize("name", PURE)
def test_a_rule_knows_neither_event_loop_nor_clock_nor_chance(name: str) -> None:
    forbidden = {"asyncio", "threading", "time", "random", "secrets", "os", "socket", "sqlite3", "subprocess"}
    paths = [*(CORE / name).glob("*.py"), *CORE.glob(f"{name}.py")]
    assert paths
    assert set().union(*map(imports_of, paths)) & forbidden == set()


def modules_and_packages(folder: Path) -> set[str]:
    found = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return found - {"__init__"}


def test_no_package_of_the_core_is_larger_than_one_can_keep_in_mind() -> None:
    assert len(modules_and_packages(CORE)) <= MOST_IN_CORE
    sizes = {path.parent.name: len(modules_and_packages(path.parent)) for path in CORE.rglob("*/__init__.py")}
    assert {name: size for name, size in sizes.items() if size > MOST_IN_A_PACKAGE} == {}


def test_modules_can_be_read_in_one_sitting() -> None:
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    assert len(sizes) > 200
    too_large = {name: size for name, size in sizes.items() if size > TOO_LARGE.get(name, MOST_LINES)}
    assert {name: size for name, size in too_large.items() if not name.startswith("stores/")} == {}
    assert {name for name in TOO_LARGE if sizes[name] <= MOST_LINES} == set(), "no exception is needed any more"


def test_each_command_of_the_command_line_has_a_module_of_its_name() -> None:
    group = load("typer.main").get_command(load("rh_agents.cli.app").app)
    commands = {name: group.get_command(None, name).callback.__module__ for name in group.list_commands(None)}
    assert commands == {name: f"rh_agents.cli.commands.{name}" for name in commands}
    assert modules_and_packages(PACKAGE / "cli" / "commands") == {*commands, "common"}


def imported_modules(path: Path, module: str, known: set[str]) -> set[str]:
    """The modules of ours that a module imports, wherever in it: in functions and for type checkers as well."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module or "")
    return found & known - {module}


@functools.cache
def imports() -> dict[str, set[str]]:
    """The modules of ours that each of them imports, those for type checkers included."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    return {module: imported_modules(path, module, set(paths)) for module, path in paths.items()}


def test_no_import_goes_in_a_circle_those_for_type_checkers_included() -> None:
    try:
        order = list(graphlib.TopologicalSorter(imports()).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
    assert len(order) > 200


def test_the_longest_chain_of_imports_grows_by_no_module() -> None:
    chains: dict[str, list[str]] = {}
    for module in graphlib.TopologicalSorter(imports()).static_order():
        chains[module] = [module, *max((chains[below] for below in imports()[module]), key=len, default=[])]
    longest = max(chains.values(), key=len)
    longest_in_core = max((chain for module, chain in chains.items() if ".core." in module), key=len)
    assert len(longest) == LONGEST_CHAIN, " imports ".join(longest)
    assert len(longest_in_core) == LONGEST_IN_CORE, " imports ".join(longest_in_core)


def test_nothing_is_loaded_with_pickle() -> None:
    for path in (*PACKAGE.glob("core/**/*.py"), *PACKAGE.glob("stores/**/*.py")):
        names = imports_of(path)
        assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}, path


# -- errors -----------------------------------------------------------------------------------------------------------

BROAD = {"Exception", "BaseException"}
MAY_CATCH_EVERYTHING = {
    "Code of the user's runs there, which may raise anything: it is shown or judged without what it would have said": (
        "core/_base/foreign.py: text_of seconds_to_wait says_yes _copied noted",
        "core/_base/sources.py: code_digest",
        "core/values/inputs.py: recorded_input",
        "core/redaction/__init__.py: RedactingRepr.repr_instance",
        "core/values/__init__.py: encode encode_large encode_error",
        "core/values/encoder.py: text_of",
        "core/values/registry.py: _unresolved_name _quietly",
        "executors/_workers/failures.py: _pickled_if_it_survives _pickled _repr _text _trace _loaded _unpickled _found",
        "executors/_workers/failures.py: _instance",
        "executors/_workers/calling.py: _pickled_failure",
        "executors/_workers/main.py: _pickled_facts",
    ),
    "Code of the user's runs there, and what it raises is the cause of an error of ours": (
        "cli/flow_job.py: _print",
        "workers/worker.py: Flow.load",
        "workers/worker.py: Worker._execute",
        "cli/targets.py: _load_from _import_dotted _guarded",
        "core/values/__init__.py: _encode_carefully",
        "executors/_workers/functions.py: _pickled",
        "cli/engines.py: _read",
        "executors/_workers/calling.py: _called _read_arguments",
        "executors/_workers/exchange.py: _pickled value_in",
    ),
    "A call ends there: its error is judged by policies, recorded, raised by its group or sent to another process": (
        "cli/map_job.py: MapJob._run_in_state",
        "workers/worker.py: Worker._reported",
        "cli/flow_job.py: _SubmittedCall.outcome",
        "core/_group/group.py: Group.make_frame",
        "core/_group/feeder.py: Feeder._start",
        "core/_group/scheduler.py: Scheduler.fill Scheduler._execute",
        "core/_run/patience.py: ask_patiently",
        "core/_run/attempts.py: with_retries",
        "executors/_workers/calling.py: outcome_of",
    ),
    "A thread or a task ends there: who waits for what it makes gets the error": (
        "cli/daemon_thread.py: DaemonThread._work",
        "cli/input/source.py: PipeSource._read_ahead",
        "integrations/_streams.py: Pieces._run",
        "stores/_writer.py: Writer._write Writer._write_again Writer._keep_artifacts Writer._do",
        "stores/following.py: _Watch._look",
        "web/live.py: Follower._follow",
    ),
    "One party must not hurt another one there: the error is logged or counted": (
        "core/_run/tracing.py: RunTracing.ask",
        "core/bus.py: Subscription._finish",
        "executors/_workers/main.py: _Forwarding.emit",
        "executors/_workers/worker.py: _log",
        "stores/_writer.py: Writer._look_after",
    ),
    "Damaged bytes and drivers may raise anything: it becomes a `StoreError` with its cause, or a finding of a check": (
        "core/values/__init__.py: decode",
        "stores/_checking.py: check _journal _one_by_one",
        "stores/_engine.py: Readers._do",
        "stores/_entries.py: _entry",
        "stores/_journal.py: SqlJournal._revived",
        "stores/_reading.py: ReadableStore._event ReadableStore._outcome",
        "stores/_verified.py: _Span.rows _Span._damage",
        "stores/fsspec_artifacts.py: FsspecArtifacts._errors",
    ),
    "What a package does inside of it may change with its version, and there is another way": (
        "cli/__init__.py: main",
        "core/values/large_validation.py: _with_pauses",
    ),
}
"""Where, by the reasons; what cleans up and raises the same error again may do so everywhere."""


def names_in(node: ast.expr | None) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} if node is not None else set()


def catches_everything(node: ast.AST) -> bool:
    """Whether it does, and does not always raise it again."""
    if isinstance(node, ast.ExceptHandler):
        is_raised_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        return (node.type is None or bool(names_in(node.type) & BROAD)) and not is_raised_again
    if isinstance(node, ast.withitem) and isinstance(node.context_expr, ast.Call):
        call = node.context_expr
        return "suppress" in ast.unparse(call.func) and any(names_in(each) & BROAD for each in call.args)
    return False


def places_within(node: ast.AST, name: str = "") -> set[str]:
    """The functions in which something catches everything, by their qualified names."""
    found = {name} if catches_everything(node) else set()
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found |= places_within(child, f"{name}.{child.name}".lstrip("."))
        else:
            found |= places_within(child, name)
    return found


def test_everything_is_caught_only_at_borders_each_for_a_reason() -> None:
    lines = [line.split(": ") for lines in MAY_CATCH_EVERYTHING.values() for line in lines]
    allowed = {f"{file} {function}" for file, functions in lines for function in functions.split()}
    found = {
        f"{path.relative_to(PACKAGE).as_posix()} {function}"
        for path in PACKAGE.rglob("*.py")
        for function in places_within(ast.parse(path.read_text()))
    }
    assert found - allowed == set(), "name the errors, or the reason in the table above"
    assert allowed - found == set(), "no exception is needed any more"


# -- documents --------------------------------------------------------------------------------------------------------

DOCUMENTS = [
    "AGENTS.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "RELEASING.md", "SECURITY.md", "docs/durability.md",
    "docs/scale.md",
]  # fmt: skip
IN_BACKTICKS = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"^[\w./{},*-]+\.(?:py|md|toml|txt|jsonl|ya?ml)$|^[\w.-]+/(?:[\w.{},-]+/)*$")
TEST = re.compile(r"\btest_\w{8,}\b")
MODULE = re.compile(r"^rh_agents(?:\.\w+)+$")


def read(document: str) -> str:
    path = ROOT / document
    if not path.exists():
        pytest.skip(f"{document} has not been written yet")
    return path.read_text()


def alternatives(path: str) -> list[str]:
    """`policies/{retry,rate}.py` is two paths."""
    match = re.search(r"\{([^{}]*)\}", path)
    if match is None:
        return [path]
    before, after = path[: match.start()], path[match.end() :]
    return [each for word in match[1].split(",") for each in alternatives(before + word + after)]


def exists(path: str) -> bool:
    """Whether a path that a document names leads somewhere: from the top, from the package, its core or the tests."""
    return any(any(base.glob(path.rstrip("/"))) for base in (ROOT, PACKAGE, PACKAGE / "core", ROOT / "tests"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_only_files_that_exist(document: str) -> None:
    named = {each for text in IN_BACKTICKS.findall(read(document)) for each in alternatives(text) if FILE.match(each)}
    generated = {each for each in named if each.startswith((".venv", "build/", "dist/", "htmlcov/", "site/"))}
    assert {each for each in named - generated if not exists(each)} == set()


def files_between(beginning: str, end: str) -> list[Path]:
    """The files that ARCHITECTURE.md names from one phrase to another one."""
    text = read("ARCHITECTURE.md")
    assert text.count(beginning) == 1
    part = text[text.index(beginning) :]
    return [ROOT / each for each in IN_BACKTICKS.findall(part[: part.index(end)]) if FILE.match(each)]


def test_who_wants_the_whole_idea_reads_at_most_fifteen_hundred_lines() -> None:
    whole = files_between("To get the whole idea, read", "and of these that follow")
    heads = files_between("and of these that follow", "\n\n")
    assert len(whole) >= 7
    assert len(heads) >= 3
    lines = sum(len(path.read_text().splitlines()) for path in whole)
    essays = [(ast.get_docstring(ast.parse(path.read_text())) or "").splitlines() for path in heads]
    assert min(map(len, essays)) >= 10, "there is an essay at the head"
    assert lines + sum(map(len, essays)) <= 1_500


def test_the_way_of_a_call_to_the_disk_is_at_most_ten_files_and_is_the_way_that_a_call_takes(tmp_path: Path) -> None:
    way = files_between("The way of `await fetch(url)`", "\n\n")
    assert len(way) <= MOST_ON_THE_WAY
    code = (
        "import asyncio, sys, rh_agents\n"
        "crossed = {}\n"
        "def note(frame, event, _):\n"
        "    name = str(frame.f_globals.get('__name__'))\n"
        "    if event == 'call' and name.startswith('rh_agents.'): crossed.setdefault(name)\n"
        "@rh_agents.tool\n"
        "async def fetch(number: int) -> int: return number\n"
        "async def main():\n"
        f"    async with rh_agents.ExecutionState(store=rh_agents.open_store({str(tmp_path / 'runs.db')!r})):\n"
        "        await fetch(1)\n"
        "        sys.setprofile(note)\n"
        "        await fetch(2)\n"
        "        sys.setprofile(None)\n"
        "asyncio.run(main())\n"
        "print(*crossed)"
    )
    crossed = in_a_new_interpreter(code).split()
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in way if path.suffix == ".py"]
    assert [name for name in crossed if name in modules] == modules, "in this order"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_names_only_modules_and_names_that_exist(document: str) -> None:
    missing = []
    for name in {text for text in IN_BACKTICKS.findall(read(document)) if MODULE.match(text)}:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "docs/durability.md"])
def test_the_architecture_names_only_tests_that_exist(document: str) -> None:
    files = list((ROOT / "tests").rglob("*.py"))
    existing = {path.stem for path in files}
    existing.update(name for path in files for name in re.findall(r"def (test_\w+)", path.read_text()))
    assert set(TEST.findall(read(document))) - existing == set()


def test_the_version_is_told_where_it_is_looked_for() -> None:
    assert re.search(r'^version = "\d+\.\d+\.\d+"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert rh_agents.__doc__
