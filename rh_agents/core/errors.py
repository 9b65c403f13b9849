"""All errors that this library raises itself.

    RhAgentsError
    ├── DefinitionError (TypeError)       an actor, or what was given to a group, cannot work as written
    │   └── OptionError (ValueError)      there is no such option, or it cannot have this value
    ├── UsageError (RuntimeError)         a method was called at a time when it has no meaning
    ├── InputError (ValueError)           the input of a call does not fit the actor's input model
    ├── OutputError (ValueError)          the result of a call does not fit the actor's output model
    ├── CallTimeout (TimeoutError)        one attempt took longer than its timeout
    ├── CallCancelled                     a call ended because someone cancelled it
    ├── CalledExit                        what was called wanted to end the whole program, with sys.exit
    ├── CircuitOpenError                  a circuit breaker refused the attempt
    ├── UndefinedOrderError               strict run: two identical calls whose order nothing defines
    ├── CodeChangedError                  strict run: recorded results are of other code than today's
    ├── UnstorableError (TypeError)       the result of a call is not serializable, so it cannot be recorded
    ├── RecordedError                     stands for a recorded error whose class this program does not have
    ├── NestingError (RecursionError)     calls are nested deeper than Python's stack has room for
    ├── UnknownOutcomeError               a call had started before a crash, and nothing tells whether it was done
    │   └── WorkerLost                    the same, because the worker process that made the call has died
    ├── RunMismatchError                  a run of this name exists, and it is about something else
    ├── ControlRefused                    what was asked of a run cannot be done, and changed nothing
    ├── RunStopped                        the run was stopped before its end, and can go on later
    │   ├── RunAwaiting                   because it waits for the answers of people
    │   └── BudgetExceeded                because a budget has been spent
    ├── ModelError                        a provider of models did not give an answer that can be used
    │   ├── TemporaryModelError           ... and may give one later; such calls are retried
    │   │   ├── RateLimited               too many requests, or tokens, for now
    │   │   ├── ModelOverloaded           it has too much to do, or trouble of its own (5xx)
    │   │   │   └── ModelLoading          it is loading the model
    │   │   ├── ModelUnreachable          no connection, or it was lost
    │   │   ├── ModelTimeout (TimeoutError)   the answer did not come, or did not go on, in time
    │   │   └── IncompleteAnswer          the answer broke off, or is no answer at all
    │   └── PermanentModelError           ... and will not; such calls are not retried
    │       ├── AccessDenied              the key is wrong, or may not do this
    │       ├── QuotaExhausted            the account has no money left
    │       ├── InvalidRequest            the provider does not take the request
    │       │   └── RequestTooLarge       it is larger than the provider, or a limit of the account, ever allows
    │       │       └── ContextTooLong    the conversation does not fit into the model
    │       ├── ModelRefused              the model, or its provider, will not answer
    │       ├── AnswerTruncated           the answer is longer than it may be
    │       ├── UnreadableAnswer          the answer came, and was paid, but has not the form of one
    │       └── InvalidAnswer             the answer does not fit the type, whatever the model was told
    ├── ToolError                         a tool that a model called failed
    ├── TooManyTurns                      an agent had no answer after all the turns that it has
    ├── StoreError                        the store could not record or read; the run stops
    │   ├── RunIsLive                     another process executes the run
    │   ├── LeaseLost                     someone else has taken the run over
    │   └── ValuesErased                  the values of the run were erased, on purpose
    ├── GroupError
    │   ├── GroupTimeout (TimeoutError)   the group took longer than its timeout
    │   └── TooManyFailures               the group reached its fail_after
    └── UnreadFailures (ExceptionGroup)   calls of a group failed and no one read their results

and `StopRun` (BaseException), which unwinds a run that is being stopped and becomes a `RunStopped` at its border.

What a called function raises is never wrapped: `ExecutionResult.unwrap` and the FAIL_FAST strategy raise that
exception object itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rh_agents.core._base.errors import RecordedError, RhAgentsError, UsageError
from rh_agents.core.usage import Shortfall, Spending, Usage

__all__ = [
    "AccessDenied",
    "AnswerTruncated",
    "BudgetExceeded",
    "CallCancelled",
    "CallTimeout",
    "CalledExit",
    "CircuitOpenError",
    "CodeChangedError",
    "CodeChangedWarning",
    "ContextTooLong",
    "ControlRefused",
    "DefinitionError",
    "GroupError",
    "GroupTimeout",
    "IncompleteAnswer",
    "InputError",
    "InvalidAnswer",
    "InvalidRequest",
    "LeaseLost",
    "ModelError",
    "ModelLoading",
    "ModelOverloaded",
    "ModelRefused",
    "ModelTimeout",
    "ModelUnreachable",
    "NestingError",
    "OptionError",
    "OutputError",
    "PermanentModelError",
    "QuotaExhausted",
    "RateLimited",
    "RecordedError",
    "RequestTooLarge",
    "RhAgentsError",
    "RunAwaiting",
    "RunIsLive",
    "RunMismatchError",
    "RunStopped",
    "StopRun",
    "StoreError",
    "TemporaryModelError",
    "TooManyFailures",
    "TooManyTurns",
    "ToolError",
    "UndefinedOrderError",
    "UndefinedOrderWarning",
    "UnknownOutcomeError",
    "UnreadFailures",
    "UnreadableAnswer",
    "UnstorableError",
    "UsageError",
    "ValuesErased",
    "WorkerLost",
]


class DefinitionError(RhAgentsError, TypeError):
    """An actor, or what was given to a group, cannot work as it is written."""


class OptionError(DefinitionError, ValueError):
    """There is no such option, or it cannot have this value. The message says what was probably meant."""


class InputError(RhAgentsError, ValueError):
    """The input of a call does not fit the actor's input model. Such a call is never retried."""


class OutputError(RhAgentsError, ValueError):
    """The result of a call does not fit the actor's output model."""


class CallTimeout(RhAgentsError, TimeoutError):
    """One attempt of a call took longer than its timeout."""


class CallCancelled(RhAgentsError):
    """A call ended because someone cancelled it, so there is neither a value nor an error of its own."""


class CalledExit(RhAgentsError):
    """What was called wanted to end the whole program (`sys.exit`, `exit`, `SystemExit`), which is for no one's part of
    it to decide. An ordinary failure: it is recorded, and tried again if the retry policy says so.
    """


class CircuitOpenError(RhAgentsError):
    """A circuit breaker refused the attempt.

    `retry_in` is the time in seconds until the breaker lets a probe through; 0.0 if it is waiting for probes under way.
    """

    def __init__(self, message: str, *, retry_in: float) -> None:
        super().__init__(message)
        self.retry_in = retry_in


class UndefinedOrderError(RhAgentsError):
    """Two identical calls of one call were made by different tasks, so that no replay could tell them apart."""


class UndefinedOrderWarning(UserWarning):
    """The same finding as `UndefinedOrderError`, in a run that is not strict."""


class CodeChangedError(RhAgentsError):
    """Strict run: the code of an actor has changed since results of it were recorded, which has not been accepted."""


class CodeChangedWarning(UserWarning):
    """The same finding as `CodeChangedError`, in a run that is not strict: the results are reused."""


class NestingError(RhAgentsError, RecursionError):
    """Calls are nested deeper than Python's stack has room for. Such a call is never retried."""


class StoreError(RhAgentsError):
    """The store could not record or read. The run stops, and nothing is acknowledged after it."""


class RunIsLive(StoreError):
    """Someone else executes the run. `owner` says who."""

    def __init__(self, message: str, *, owner: str) -> None:
        super().__init__(message)
        self.owner = owner


class LeaseLost(StoreError):
    """Someone else has taken the run over, because this process gave no sign of life for too long."""


class ValuesErased(StoreError):
    """What the calls of a run came to was erased on purpose (`rh-agents erase`): nothing is damaged, and it is gone."""


class UnstorableError(RhAgentsError, TypeError):
    """The result of a call is not serializable, so it cannot be recorded."""


class UnknownOutcomeError(RhAgentsError):
    """A call had started when an earlier execution ended, and nothing tells whether it was done."""


class WorkerLost(UnknownOutcomeError):
    """The worker that made a call died before it reported the outcome: it ran out of memory, or someone killed it.

    What becomes of the call is for `on_unknown` to say.

    Attributes:
        has_begun: whether the function may have been called. If not, this is a failure like any other.
        max_lost: how many workers one call may lose before it is not made again, whatever `on_unknown` says.
    """

    def __init__(self, message: str, *, has_begun: bool = True, max_lost: int = 3) -> None:
        super().__init__(message)
        self.has_begun = has_begun
        self.max_lost = max_lost


class RunMismatchError(RhAgentsError, ValueError):
    """There is a run of this name, and it was started with another workflow or another input."""


class ControlRefused(RhAgentsError):
    """What was asked of a run cannot be done, and nothing was changed: one sentence that says why, and what to do."""


class RunStopped(RhAgentsError):
    """The run was stopped before its end; started again under the same name, it resumes where it was."""

    def __init__(self, message: str, *, run_id: str, reason: str) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason


class RunAwaiting(RunStopped):
    """The run waits for the answers of people. `questions` are their ids."""

    def __init__(self, message: str, *, run_id: str, reason: str, questions: Sequence[str]) -> None:
        super().__init__(message, run_id=run_id, reason=reason)
        self.questions: tuple[str, ...] = tuple(questions)


class BudgetExceeded(RunStopped):
    """A budget has been spent; with a larger one, the run resumes where it was.

    Attributes:
        spent: what was spent on what.
        field: the field of the `Budget` that does not suffice, such as "cost".
        part: whose budget it is; "" for that of the run itself.
    """

    def __init__(
        self, message: str, *, run_id: str, reason: str, spent: Spending, field: str = "", part: str = ""
    ) -> None:
        super().__init__(message, run_id=run_id, reason=reason)
        self.spent = spent
        self.field = field
        self.part = part


class ModelError(RhAgentsError):
    """A provider of models did not give an answer that can be used.

    Attributes:
        status: the HTTP status, if there was one.
        code: the provider's own word for what is wrong.
        request_id: how the provider finds the request.
        retry_after: after this many seconds another attempt may succeed, if the provider says so.
        usage: what the request used all the same; None if nothing, or if that is not known.
    """

    usage: Usage | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        usage: Usage | None = None,
    ) -> None:
        super().__init__(message)
        if usage is not None:
            self.usage = usage  # else nothing is recorded of it
        self.status = status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after


class TemporaryModelError(ModelError):
    """Another attempt may succeed."""


class RateLimited(TemporaryModelError):
    """Too many requests, or tokens, for now."""


class ModelOverloaded(TemporaryModelError):
    """The provider has too much to do, or trouble of its own (5xx)."""


class ModelLoading(ModelOverloaded):
    """The server is loading the model, and answers when that is done."""


class ModelUnreachable(TemporaryModelError):
    """There is no connection to the provider, or it was lost."""


class ModelTimeout(TemporaryModelError, TimeoutError):
    """The answer did not come in time, or did not go on."""


class IncompleteAnswer(TemporaryModelError):
    """The answer broke off before its end, or is no answer at all (broken JSON, no choices)."""


class PermanentModelError(ModelError):
    """Another attempt with the same request will not succeed, so there is none."""


class AccessDenied(PermanentModelError):
    """The key is missing or wrong, or may not do this."""


class QuotaExhausted(PermanentModelError):
    """The account has no money, or no quota, left."""


class InvalidRequest(PermanentModelError):
    """The provider does not take the request: there is no such model, or a field is wrong."""


class RequestTooLarge(InvalidRequest):
    """The request is larger than the provider, or a limit of the account, allows: at no time will it be taken."""


class ContextTooLong(RequestTooLarge):
    """The conversation does not fit into the model."""


class ModelRefused(PermanentModelError):
    """The model will not answer, or its provider cut the answer off (content filter)."""


class AnswerTruncated(PermanentModelError):
    """An answer that must be an object, or arguments of a tool, ended at the greatest number of tokens."""


class UnreadableAnswer(PermanentModelError):
    """An answer came, and has to be paid, but it has not the form of one: the protocol of the provider is broken.

    The model has been asked once more by then. Neither `retry` nor `output_retries` ask again: an endpoint that answers
    so is likely to answer so always, and each of its answers has its price. `usage` says what they used together.
    """


class InvalidAnswer(PermanentModelError):
    """The answer does not fit the type that was asked for, also after the model was shown what is wrong with it."""


class ToolError(RhAgentsError):
    """A tool that a model called failed, or cannot be called so. Raised by tools, its text goes to the model."""


class TooManyTurns(RhAgentsError):
    """An agent had no answer after all the turns that it has (`max_turns`)."""


class StopRun(BaseException):
    """Unwinds a run that is being stopped: no new call begins, and what it cuts off has no outcome.

    Not an `Exception`, so that code which handles the failures of calls does not take it for one. `questions` are the
    ids of those that have to be answered before the program can go on here; `shortfall` is given if it is a budget
    that stops it.
    """

    def __init__(self, reason: str, questions: Sequence[str] = (), shortfall: Shortfall | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.questions: tuple[str, ...] = tuple(questions)
        self.shortfall = shortfall

    def __or__(self, other: StopRun) -> StopRun:
        """Both: some members of a group wait for this, others for that."""
        first = other if self.shortfall is None and other.shortfall is not None else self
        return StopRun(first.reason, tuple(dict.fromkeys(self.questions + other.questions)), first.shortfall)


class GroupError(RhAgentsError):
    """A group ended early. `results` holds, in order of index, the `ExecutionResult`s of what had finished by then.

    (Their type is left open: results hold errors, so that their module knows this one.)
    """

    def __init__(self, message: str, *, group: str, results: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.group = group
        self.results: tuple[Any, ...] = tuple(results)


class GroupTimeout(GroupError, TimeoutError):
    """A group took longer than its timeout, and what was still running has been cancelled."""


class TooManyFailures(GroupError):
    """A group reached its `fail_after`. `__cause__` is the failure that reached it."""


class UnreadFailures(ExceptionGroup[Exception], RhAgentsError):
    """Calls of a group failed, and the block ended without anybody having read their results."""

    def derive(self, excs: Sequence[Exception]) -> UnreadFailures:  # type: ignore[override]
        """Keep the type when Python splits the group for `except*`."""
        return UnreadFailures(self.message, excs)
