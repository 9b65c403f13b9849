"""What the job of `map` needs of an output, whatever its format: a row at a time, and an end.

A row is first formed, which may fail because of its values, and then written, which may fail because of the file.
What was written is certain to be in the file after `finish`. A format may keep rows back until then, or for a while,
but what is in the file is always whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

__all__ = ["ResultWriter"]


class ResultWriter(Protocol):
    """An output that is open; its block closes it, which does not finish it."""

    name: str
    """For people."""
    form: str
    """What rows are written as, for people."""

    def restart(self) -> None:
        """Forget what an earlier execution wrote, if the output was opened for that. Comes before the first row.

        Raises:
            OutputFailed: the system does not allow it.
        """

    def formed(self, record: Mapping[str, Any], /) -> Any:
        """What `write` takes of a record.

        Raises:
            Exception: the format has no form for a value of this record, so that its item has failed.
        """

    async def write(self, formed: Any, /) -> None:
        """Write a row.

        Raises:
            OutputFailed: it could not be written, nor can any other.
        """

    async def finish(self) -> None:
        """See to it that all rows that were written are in the file. Comes last, and not after a failure.

        Raises:
            OutputFailed: they cannot be.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
