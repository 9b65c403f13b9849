"""Options as programs give them: one that there is not, or a word that is no choice, is refused with what was meant.

There is one mechanism for misspelt options. `takes_options` stands above a function or a class whose options users
give by name. It costs a frame where it is called, and looks at nothing unless Python itself has refused the arguments.
Options that end in a `**` (those of actors, of `run` and of models) are compared by `expect_known`.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import ValidationError

from rh_agents.core._base.tracebacks import trimmed, users_lines
from rh_agents.core.errors import OptionError
from rh_agents.core.redaction import RedactingRepr

T = TypeVar("T", bound=Callable[..., Any])
E = TypeVar("E", bound=StrEnum)

_shown = RedactingRepr()
_shown.maxstring = _shown.maxother = 40
_shown.maxlevel = 2

_OTHER_WORDS: Mapping[str, tuple[str, ...]] = {
    "model": ("llm",),
    "system": ("instructions",),
    "prompt": ("instructions",),
    "system_prompt": ("instructions",),
    "system_message": ("instructions",),
    "output_type": ("output",),
    "result_type": ("output",),
    "response_model": ("output",),
    "response_format": ("output",),
    "functions": ("tools",),
    "concurrency": ("max_workers", "limit"),
    "max_concurrency": ("max_workers", "limit"),
    "workers": ("max_workers",),
    "n_jobs": ("max_workers",),
    "attempts": ("max_attempts", "retry"),
    "retries": ("retry", "max_attempts"),
    "max_retries": ("retry", "max_attempts"),
    "failures": ("failure_threshold",),
    "rate_limit": ("limits",),
    "price": ("cost",),
    "money": ("cost",),
    "db": ("store",),
    "database": ("store",),
    "checkpointer": ("store",),
    "id": ("run_id",),
    "thread_id": ("run_id",),
    "parallel": ("max_workers",),
}
"""What other libraries call an option of ours; the first one counts that there is."""

_WANTED: Mapping[str, str] = {
    "name": "a text is needed",
    "version": "a text is needed, such as version='2'",
    "handler": "a function is needed",
    "llm": "a model is needed, such as OpenAIChat('gpt-5-mini') of rh_agents.llms",
    "limits": "limits are needed, such as RateLimit(requests=500)",
    "breaker": "a CircuitBreaker is needed, such as CircuitBreaker(5)",
    "handoffs": "agents are needed: [Agent(...), ...]",
    "timeout": "seconds above 0 are needed",
    "ttl": "seconds above 0 are needed",
}
"""What an option of an actor has to be, where Pydantic's own words do not say it."""


def meant_by(option: str, known: Iterable[str]) -> str:
    """`did you mean retry=?`, or which options there are."""
    options = sorted(known)
    words = [each for each in _OTHER_WORDS.get(option, ()) if each in options]
    near = words or difflib.get_close_matches(option, options, n=1)
    return f"did you mean {near[0]}=?" if near else f"there are {', '.join(options)}"


def expect_known(what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that there are not, and name the one that was probably meant.

    Raises:
        OptionError: one of them is unknown; there is one sentence for it, and not a page for each.
    """
    options = set(known)
    for option in given:
        if option not in options:
            raise OptionError(f"{what} has no option {option}=: {meant_by(option, options)}")


def one_of(choices: type[E], name: str, given: object) -> E:
    """One of the words that an option can be.

    Raises:
        OptionError: it is none of them.
    """
    try:
        return choices(given)  # type: ignore[arg-type]
    except ValueError:
        raise OptionError(_no_choice(name, given, [each.value for each in choices])) from None


def _no_choice(name: str, given: object, words: list[str]) -> str:
    near = difflib.get_close_matches(given, words, n=1) if isinstance(given, str) else []
    meant = f"; did you mean {near[0]!r}?" if near else ""
    return f"{name}={_shown.repr(given)}: there are {', '.join(map(repr, words))}{meant}"


def instance_of(wanted: type[Any], name: str, given: Any) -> Any:
    """What an option is, if it is of this class or None.

    Raises:
        OptionError: it is something else.
    """
    if given is None or isinstance(given, wanted):
        return given
    raise OptionError(f"{name}={_shown.repr(given)}: {_WANTED[name]}")


def named_run(given: object) -> str:
    """The name of a run.

    Raises:
        OptionError: it is none.
    """
    if isinstance(given, str) and given:
        return given
    raise OptionError(f"run_id={_shown.repr(given)}: a text is needed, such as run_id='monday'; None makes a new one")


def takes_options(shown: str = "", *, first: str = "") -> Callable[[T], T]:
    """Decorates a function, a method or a class whose options users give by name.

    Args:
        shown: as users write it; by default the name of the class of which an object is made.
        first: what somebody probably means who gives an option by its position.

    An option that there is not, and one that has to be given by name, is then an `OptionError` that says what was
    meant. What the function raises itself is not touched.
    """

    def decorate(function: T) -> T:
        same = function
        if isinstance(function, type):
            function.__init__ = _explained(function.__init__, shown, first)  # type: ignore[misc]
            return same
        return _explained(function, shown, first)

    return decorate


def _explained(function: T, shown: str, first: str) -> T:
    @functools.wraps(function)
    def explained(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            problem = _misfit(function, shown or type(args[0]).__name__, first, args, kwargs)
            if problem is None:  # the function has begun, and this is its own
                trimmed(error)
                raise
        with users_lines:
            raise OptionError(problem)

    return explained  # type: ignore[return-value]


def _misfit(
    function: Callable[..., Any], shown: str, first: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> str | None:
    """Why a function does not take these arguments."""
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    for option in () if takes_any else kwargs:
        if option not in signature.parameters:
            return f"{shown} has no option {option}=: {meant_by(option, [each.name for each in parameters])}"
    by_position = [each for each in signature.parameters.values() if each.kind is not each.KEYWORD_ONLY]
    by_name = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    by_position = [each for each in by_position if each.kind is not each.VAR_KEYWORD]
    if len(args) > len(by_position) and (first or by_name):
        written = f"{shown.removesuffix('()')}({first or by_name[0]}={_shown.repr(args[len(by_position)])})"
        return f"{shown} takes its options by name: write {written}"
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        return f"{shown}: {error}"
    return None


def as_made(cls: type[object], options: Mapping[str, Any]) -> str:
    """An actor as its user writes it, in short, when it is made."""
    name = options.get("name") or options.get("model")
    return f"{cls.__name__}({name!r})" if isinstance(name, str) else f"{cls.__name__}(…)"


def explained_fields(what: str, error: ValidationError) -> OptionError:
    """What Pydantic refuses of the options of something, in one sentence."""
    items = error.errors(include_url=False)
    contexts = [item.get("ctx", {}) for item in items if not item["loc"]]
    of_all = [str(context["error"]) for context in contexts if "error" in context]
    if of_all:
        return OptionError(of_all[0])
    found = [_field_problem(item) for item in items]
    return OptionError(f"{what}: {'; '.join(found)}")


def _field_problem(item: Mapping[str, Any]) -> str:
    place = "".join(f"[{part!r}]" if index else str(part) for index, part in enumerate(item["loc"]))
    field, given, context = place.partition("[")[0], item.get("input"), item.get("ctx", {})
    if item["type"] == "missing":
        return f"{place}= is missing"
    if item["type"] == "value_error":
        text = str(context["error"])
        return text if not field or text.startswith((f"{field}=", f"{field}[")) else f"{field}: {text}"
    if item["type"] in ("enum", "literal_error"):
        words = [word.strip("'") for word in context["expected"].replace(" or ", ", ").split(", ")]
        return _no_choice(field, given, words)
    message = item["msg"][:1].lower() + item["msg"][1:]
    return f"{place}={_shown.repr(given)}: {_WANTED.get(field, message)}"
