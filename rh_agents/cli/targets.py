"""MODULE:NAME: from what is written on the command line to the actor that it names."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from rh_agents.cli.errors import CommandError, close_names, location_of, one_line
from rh_agents.core.actors import BaseActor
from rh_agents.core.errors import DefinitionError
from rh_agents.core.results import describe_error
from rh_agents.decorators import ActorDecorator, ActorFunction

__all__ = ["file_of", "known_actors", "load_actor", "load_value", "short_name"]

_SHOWN = 6


def load_actor(spec: str, decorator: ActorDecorator) -> ActorFunction[..., Any] | BaseActor:
    """The actor that `MODULE:NAME` names; `decorator` makes one of a function that has none.

    MODULE is a dotted name or the path of a .py file, and NAME may be dotted. The working directory is importable.

    Raises:
        CommandError: there is no such thing, or it cannot be called.
    """
    return _as_actor(load_value(spec, "an actor", "examples/sentiment.py:classify"), spec, decorator)


def load_value(spec: str, what: str, example: str) -> Any:
    """What `MODULE:NAME` names; `what` and `example` are for the error if it is not written so.

    Raises:
        CommandError: there is no such thing.
    """
    module_name, colon, name = spec.rpartition(":")
    if not colon or not module_name or not name:
        raise CommandError(f"{spec!r} does not name {what}: write MODULE:NAME, as in {example}")
    return _find(_import(module_name), name)


def short_name(spec: str) -> str:
    """The last part of the module, without folders: `sentiment` of `examples/sentiment.py:classify`."""
    module = spec.rpartition(":")[0]
    if _is_path(module):
        return Path(module).stem
    return module.rpartition(".")[2]


def file_of(spec: str) -> str:
    """The file of the module that `MODULE:NAME` names, which has been imported; its name, if it has no file."""
    name = spec.rpartition(":")[0]
    if _is_path(name):
        return str(Path(name).resolve())
    module = sys.modules.get(name)
    found = None if module is None else _file_of(module)
    return name if found is None else str(found)


def known_actors(target: ActorFunction[..., Any] | BaseActor | None = None) -> dict[str, BaseActor]:
    """By name, the actors in the modules that have been imported; where several have one name, that beside `target`."""
    actors: dict[str, BaseActor] = {}
    program = sys.modules.get(getattr(target, "__module__", ""))
    for module in [program, *sys.modules.values()]:
        for value in list(getattr(module, "__dict__", {}).values()):
            actor = value.actor if isinstance(value, ActorFunction) else value
            if isinstance(actor, BaseActor):
                actors.setdefault(actor.name, actor)
    return actors


def _is_path(module: str) -> bool:
    return module.endswith(".py") or "/" in module or "\\" in module


def _as_actor(found: Any, spec: str, decorator: ActorDecorator) -> ActorFunction[..., Any] | BaseActor:
    if isinstance(found, ActorFunction | BaseActor):
        return found
    if inspect.isclass(found):
        raise CommandError(
            f"{spec} is a class: name a function, a decorated function, or an actor that was made of one"
        )
    if not callable(found):
        raise CommandError(f"{spec} is a {type(found).__name__}, which cannot be called")
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise CommandError(
            f"{spec} is a generator function, which has no single result: write a function that returns one"
        )
    try:
        return _decorated(found, decorator)
    except DefinitionError as error:
        raise CommandError(f"{spec} cannot be called: {error}") from error


def _decorated(function: Callable[..., Any], decorator: ActorDecorator) -> ActorFunction[..., Any]:
    """An actor of a plain function. It is shown to no model, so it need not have a name for each parameter."""
    if isinstance(function, FunctionType) and function.__code__.co_posonlyargcount:
        decorator = decorator(name=function.__name__, description=inspect.getdoc(function))
        function = functools.partial(function)
    made: ActorFunction[..., Any] = decorator(function)
    return made


# -- modules ----------------------------------------------------------------------------------------------------------


def _import(name: str) -> ModuleType:
    _make_importable(Path.cwd())
    if _is_path(name):
        return _import_file(Path(name))
    return _import_dotted(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file under the name that it has for the modules beside it, so that worker processes find it as well."""
    if not path.exists():
        names = [str(path.with_name(other.name)) for other in path.parent.glob("*.py")]
        raise CommandError(f"there is no file {path}{close_names(str(path), names)}")
    if path.is_dir():
        raise CommandError(f"{path} is a directory: name a .py file or a dotted module")
    path = path.resolve()
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").exists():
        parts.insert(0, root.name)
        root = root.parent
    _make_importable(root)
    name = ".".join(parts)
    loaded = sys.modules.get(name)
    if loaded is not None and _file_of(loaded) != path:  # another module has this name: json.py, for instance
        name = f"_rh_agents_{path.stem}"
        return _load_from(path, name)
    return _guarded(name, str(path))


def _load_from(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CommandError(f"{path} cannot be imported: it is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _import_failed(str(path), str(path), error) from error
    return module


def _import_dotted(name: str) -> ModuleType:
    top = name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_failed(name, None, error) from error
        spec = None
    except ValueError:
        spec = None
    except (Exception, SystemExit) as error:
        raise _import_failed(name, None, error) from error
    if spec is None:
        names = {module.name for module in pkgutil.iter_modules([str(Path.cwd())])} | set(sys.modules)
        raise CommandError(f"there is no module {name!r}{close_names(top if '.' not in name else name, names)}")
    return _guarded(name, spec.origin)


def _guarded(name: str, path: str | None) -> ModuleType:
    """Import; whatever the module raises meanwhile is its author's to mend, and is reported with its position."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _import_failed(name, path, error) from error


def _import_failed(name: str, path: str | None, error: BaseException) -> CommandError:
    return CommandError(f"importing {name} failed: {one_line(describe_error(error))}{location_of(error, path)}")


def _make_importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _file_of(module: ModuleType) -> Path | None:
    return None if getattr(module, "__file__", None) is None else Path(str(module.__file__)).resolve()


# -- names ------------------------------------------------------------------------------------------------------------


def _find(module: ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = module.__name__ if found is module else f"{module.__name__}:{name.rpartition('.')[0]}"
            raise CommandError(f"{where} has no {part!r}{_suggestions(part, found)}") from None
    return found


def _suggestions(wanted: str, owner: Any) -> str:
    names = (
        [name for name, value in vars(owner).items() if _is_offered(name, value, owner)]
        if hasattr(owner, "__dict__")
        else []
    )
    close = close_names(wanted, names)
    if close or not names:
        return close
    more = ", …" if len(names) > _SHOWN else ""
    return f"; it has {', '.join(names[:_SHOWN])}{more}"


def _is_offered(name: str, value: Any, owner: Any) -> bool:
    """Whether it is worth naming: an actor, or a function that was written in this module."""
    if name.startswith("_"):
        return False
    if isinstance(value, ActorFunction | BaseActor):
        return True
    return inspect.isfunction(value) and value.__module__ == getattr(owner, "__name__", None)
