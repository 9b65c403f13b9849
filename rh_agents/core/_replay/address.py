"""Addresses: the readable place of a call in its run, such as `survey::pages[3]::fetch`. For people, not for replay.

So a registered secret in a name is replaced by its own name.
"""

from __future__ import annotations

from rh_agents.core.redaction import without_secrets

__all__ = ["SEPARATOR", "address_of_member", "child_address", "place_of_members"]

SEPARATOR = "::"


def child_address(parent: str, name: str, occurrence: int) -> str:
    """The address of a call: `survey::fetch`, and `survey::fetch#2` for the second identical call."""
    name = without_secrets(name)
    own = name if occurrence == 0 else f"{name}#{occurrence + 1}"
    return f"{parent}{SEPARATOR}{own}" if parent else own


def place_of_members(parent: str, group: str) -> str:
    """What the addresses of all members of a group begin with: `survey::pages`."""
    group = without_secrets(group)
    return f"{parent}{SEPARATOR}{group}" if parent else group


def address_of_member(place: str, index: int, shown: str) -> str:
    """The address of the member `index` of the group at a place: `survey::pages[3]::fetch`.

    Args:
        place: what `place_of_members` gives.
        index: counted from 0.
        shown: the name of the member, without secrets.
    """
    return f"{place}[{index}]{SEPARATOR}{shown}" if shown else f"{place}[{index}]"
