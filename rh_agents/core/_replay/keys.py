"""The identity of calls and groups, from which replay works.

A key is a SHA-256 digest over length-prefixed parts, so that no two lists of parts have the same bytes. It holds what
makes a call *this* call and nothing else: in particular not its index in a group, so that items can be inserted,
removed and reordered without losing the outcomes of the others.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

__all__ = [
    "ROOT_KEY",
    "Canonical",
    "again_key",
    "child_key",
    "group_key",
    "idempotency_key",
    "identity",
    "identity_of_item",
    "identity_of_unseen",
    "tried_key",
]

ROOT_KEY = b""
"""The key of a run itself: the same for every run, so that a call keeps its key when its run is forked."""


Canonical = bytes | list[bytes]
"""The canonical form of an input: all of it, or the pieces of a large one."""


def identity(actor: str, version: str, data: Canonical, explicit: str | None) -> bytes:
    """What two calls of one parent have in common when they are the same call: `key=` replaces the input."""
    if explicit is not None:
        return _digest(b"explicit", _text(actor), _text(version), _text(explicit))
    prefix = _actor_prefix(actor, version)
    return sha256(prefix + data).digest() if isinstance(data, bytes) else _digest_of_pieces(prefix, data)


def identity_of_unseen(group_id: str, name: str | None, explicit: str | None, index: int) -> bytes:
    """The same for work whose input cannot be seen (a coroutine, a lambda): its key, else its name, else its index.

    What the work does cannot be seen either, so it belongs to one group: the id tells apart groups of one name.
    """
    if explicit is not None:
        return _digest(b"unseen-key", _text(group_id), _text(explicit))
    if name is not None:
        return _digest(b"unseen-name", _text(group_id), _text(name))
    return _digest(b"unseen-index", _text(group_id), b"%d" % index)


def identity_of_item(group_id: str, function: str, data: Canonical) -> bytes:
    """The same for an item to which `map` applies a plain function: the group, the function's name and the item."""
    if isinstance(data, bytes):
        return _digest(b"item", _text(group_id), _text(function), data)
    prefix = _parts(b"item", _text(group_id), _text(function)) + b"%d:" % sum(map(len, data))
    return _digest_of_pieces(prefix, data)


def child_key(parent: bytes, group: str, same: bytes, occurrence: int) -> bytes:
    """The key of a call: its parent's key, the name of its group ("" outside of one), its identity, its occurrence."""
    return sha256(b"%b%b%d" % (_place_prefix(parent, group), same, occurrence)).digest()


def group_key(parent: bytes, name: str, occurrence: int) -> bytes:
    """The key of a group, from which its id is made."""
    return _digest(b"group", parent, _text(name), b"%d" % occurrence)


def again_key(key: bytes) -> bytes:
    """The key of a call that is made again after it failed for good: an outcome is never overwritten."""
    return _digest(b"again", key)


def tried_key(base: bytes, tries: int) -> bytes:
    """The key of a call whose first try has the key `base` when it has been made so often before."""
    for _ in range(tries):
        base = again_key(base)
    return base


def idempotency_key(run_id: str, key: bytes) -> str:
    """What a called function can hand to a service, so that a repeated attempt is recognised there."""
    return _digest(b"idempotency", _text(run_id), key).hex()[:40]


@lru_cache(maxsize=1024)
def _actor_prefix(actor: str, version: str) -> bytes:
    """The same for all calls of an actor. What follows it has no end of its own, so it needs no length."""
    return _parts(b"call", _text(actor), _text(version))


@lru_cache(maxsize=1024)
def _place_prefix(parent: bytes, group: str) -> bytes:
    """The same for all members of a group. An identity of 32 bytes and the occurrence follow it."""
    return _parts(b"child", parent, _text(group))


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _parts(*parts: bytes) -> bytes:
    return b"".join([b"%d:%b" % (len(part), part) for part in parts])


def _digest(*parts: bytes) -> bytes:
    return sha256(_parts(*parts)).digest()


def _digest_of_pieces(prefix: bytes, pieces: list[bytes]) -> bytes:
    digest = sha256(prefix)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
