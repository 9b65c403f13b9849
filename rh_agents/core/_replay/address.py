"""Addresses: the readable place of a call in its run, such as `survey::pages[3]::fetch`. For people, not for replay.

So a registered secret in a name is replaced by its own name.
"""

from __future__ import annotations

from rh_agents.core.redaction import without_secrets

__all__ = ["SEPARATOR", "child_address", "member_address"]

SEPARATOR = "::"


def child_address(parent: str, name: str, occurrence: int) -> str:
    """The address of a call: `survey::fetch`, and `survey::fetch#2` for the second identical call."""
    name = without_secrets(name)
    own = name if occurrence == 0 else f"{name}#{occurrence + 1}"
    return f"{parent}{SEPARATOR}{own}" if parent else own


def member_address(parent: str, group: str, index: int, name: str) -> str:
    """The address of the member `index` of a group: `survey::pages[3]::fetch`."""
    group, name = without_secrets(group), without_secrets(name)
    place = f"{parent}{SEPARATOR}{group}[{index}]" if parent else f"{group}[{index}]"
    return f"{place}{SEPARATOR}{name}" if name else place
