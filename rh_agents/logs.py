"""Where log records come from: the run, the address and the attempt of the call in which they are made.

    handler.addFilter(CallFilter())      # logging: record.run_id, record.address, record.attempt
    structlog.configure(processors=[add_call, ...])

Both find the call by `current()`, so they work in threads and in worker processes too. What secrets a record has is the
handler's business: `rh_agents.core.redaction.RedactingFilter` takes them out.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from rh_agents.core.context import current
from rh_agents.core.errors import UsageError

__all__ = ["CallFilter", "add_call"]


def _call() -> dict[str, Any]:
    try:
        call = current()
    except UsageError:
        return {}
    return {"run_id": call.run_id, "address": call.address, "attempt": call.attempt}


class CallFilter(logging.Filter):
    """Gives each record `run_id`, `address` and `attempt`; "-", "-" and 0 outside of calls. It lets all records pass.

    Add it to a handler: filters of a logger are not asked about records of the loggers below it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, unless the record has been given them."""
        for name, value in {"run_id": "-", "address": "-", "attempt": 0, **_call()}.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def add_call(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: adds the same fields where the event does not have them; outside of calls none."""
    for name, value in _call().items():
        event.setdefault(name, value)
    return event
