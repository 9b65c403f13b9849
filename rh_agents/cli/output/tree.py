"""The journal of a run as a tree of calls and groups: a fold over its events, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rh_agents.cli.output.page import Page, Part
from rh_agents.core._replay.ancestry import addresses_around
from rh_agents.core._replay.codes import Made, Versions
from rh_agents.core._replay.identity import SEPARATOR, again_key
from rh_agents.core.events import ExecutionEvent
from rh_agents.core.groups import ParallelEventGroup
from rh_agents.core.ports import Execution, RecordedEvent
from rh_agents.core.ports.outline import CallsBelow, PlainMembers, RunOutline
from rh_agents.core.types import EventType, ExecutionStatus
from rh_agents.display.labels import label_of
from rh_agents.display.text import brief, brief_result, duration, harmless

__all__ = ["SHORT_KEY", "Node", "RunTree", "TreeView", "leave_out_content", "record_of_node", "records_of_nodes"]

SHORT_KEY = 8
"""Digits of a key that are shown: enough to tell apart the calls of one address."""
_LONGEST_RESULT = 80
_LONGEST_MESSAGE = 500
_LONGEST_TAG = 80
_LONGEST_INPUT = 2_100
"""Characters: what is recorded of a call that failed."""
_FEW = 10
_FIRST = 3
_MOST_TROUBLED = 20
_OK = (ExecutionStatus.COMPLETED, ExecutionStatus.HUMAN_INTERVENTION)


@dataclass(slots=True, eq=False)
class Node:
    """A call or a group.

    Attributes:
        key: of a call, in hexadecimal; None for groups, and for calls of which nothing is kept.
        index: its position in its group.
        group_id: the group itself, or the one of which the call is a member.
        began, ended: sequence numbers in the journal of its last start and of its outcome; 0 if it has none.
        has_outcome: whether the call has an outcome, after which nothing changes any more.
        tries: how often the call was made, each time with the attempts that its policy allows.
        given: what the call was called with, where that was recorded.
        is_reused: its outcome is older than the last execution of what it is a part of.
        is_superseded: it is to be called again, by request.
        is_earlier: it is of a version of its actor that is past.
        group: the status of a group.
        plain: how many members of a group are not among its children: there is nothing to be said about them.
        plain_before: how many of these are older than the last execution of the group.
        plain_earlier: how many more of them there are that are of versions that are past.
        below_plain: how many calls and groups are below these.
        made: the name and the version of the actor of a call.
    """

    address: str
    name: str
    kind: EventType
    status: ExecutionStatus
    key: str | None
    index: int | None
    group_id: str | None
    first: int
    began: int = 0
    ended: int = 0
    timestamp: float = 0.0
    attempts: int = 1
    seconds: float | None = None
    message: str | None = None
    result: str = ""
    given: str = ""
    tag: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    tries: int = 1
    has_outcome: bool = False
    is_reused: bool = False
    is_superseded: bool = False
    is_earlier: bool = False
    group: ParallelEventGroup | None = None
    parent: Node | None = None
    children: list[Node] = field(default_factory=list)
    plain: int = 0
    plain_before: int = 0
    plain_earlier: int = 0
    below_plain: int = 0
    made: Made = ("", "")

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        return self.kind is EventType.GROUP_STARTED

    @property
    def has_failed(self) -> bool:
        """Whether it is a call that has failed."""
        return self.status is ExecutionStatus.FAILED and not self.is_group

    @property
    def is_fine(self) -> bool:
        """Whether there is nothing to be said about it."""
        return self.status in _OK and not self.is_superseded

    @property
    def present(self) -> list[Node]:
        """What it is made of, without what is of versions that are past."""
        return [child for child in self.children if not child.is_earlier]

    @property
    def earlier(self) -> int:
        """How many of its members are of versions that are past."""
        return self.plain_earlier + len(self.children) - len(self.present)


class RunTree:
    """Folds events; results are kept as short texts only."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._at: dict[str, list[Node]] = {}
        self._last_try: dict[str, str] = {}
        self._plain: Sequence[PlainMembers] = ()
        self._below: Sequence[CallsBelow] = ()
        self.last: int = 0
        """The sequence number of the last event."""

    def add(self, recorded: RecordedEvent) -> None:
        """The next event."""
        event, self.last = recorded.event, recorded.sequence
        if event.event_type is EventType.CONTROL:
            return
        if event.group is not None:
            self._add_group(event, event.group)
            return
        node = self._node(event)
        status = event.execution_status
        if status is ExecutionStatus.SUPERSEDED:
            node.is_superseded, node.timestamp = True, event.timestamp
            return
        if node.has_outcome:
            return  # the first outcome of a call counts: what follows says nothing of it
        node.has_outcome = recorded.has_outcome
        node.status, node.timestamp = status, event.timestamp
        if event.tag or event.metadata:
            node.tag, node.metadata = event.tag, event.metadata
        node.attempts = max(node.attempts, event.attempt)
        if status is ExecutionStatus.STARTED:
            node.began, node.message = self.last, None
        else:
            node.message = event.message
        if status.is_final:
            node.ended, node.seconds = self.last, event.execution_time
            node.result = "" if event.result is None else _short(brief_result(event.result))

    @property
    def failed(self) -> list[Node]:
        """The calls that failed and have an outcome."""
        return [node for node in self._nodes.values() if node.has_failed and node.has_outcome]

    def add_inputs(self, inputs: Mapping[int, str]) -> None:
        """What calls were called with, by the sequences of their outcomes."""
        for node in self._nodes.values():
            node.given = inputs.get(node.ended, "")

    def leave_out(self, outline: RunOutline) -> None:
        """Members of groups, and what is below them, of which only the number is known. All events have been added."""
        self._plain, self._below = outline.plain, outline.below
        for members in outline.plain:
            node = self._nodes[f"group {members.group_id}"]
            node.plain += len(members)
            node.plain_before += _before(members, node.began)
        for calls in outline.below:
            self._nodes[f"group {calls.group_id}"].below_plain += calls.number
        for group_id, number in outline.groups_below.items():
            self._nodes[f"group {group_id}"].below_plain += number

    def tell_versions_apart(self, executions: Iterable[Execution]) -> None:
        """Find what is of versions that are past. All events have been added, and nothing else is left out."""
        versions = Versions()
        calls = [node for node in self._nodes.values() if not node.is_group]
        for node in calls:
            versions.note(node.made, node.first, node.first)
        for members in self._plain:
            versions.note((members.name, members.version), min(members.begins), max(members.begins))
        for below in self._below:
            versions.note((below.name, below.version), below.begins, below.last)
        past = versions.past(each.after for each in executions)
        for node in calls if past else ():
            node.is_earlier = node.made in past
        for members in self._plain:
            if (members.name, members.version) in past:
                node = self._nodes[f"group {members.group_id}"]
                node.plain -= len(members)
                node.plain_before -= _before(members, node.began)
                node.plain_earlier += len(members)

    def _node(self, event: ExecutionEvent[Any]) -> Node:
        name = event.key or event.address
        node = self._nodes.get(name)
        if node is None:
            node = Node(
                event.address,
                event.name,
                event.event_type,
                event.execution_status,
                event.key,
                event.parallel_index,
                event.group_id,
                self.last,
                made=(event.actor.name, event.actor.recorded_version),
            )
            self._nodes[name] = node
            self._at.setdefault(event.address, []).append(node)
        node.index = event.parallel_index
        return node

    def _add_group(self, event: ExecutionEvent[Any], group: ParallelEventGroup) -> None:
        name = f"group {group.group_id}"
        node = self._nodes.get(name)
        if node is None:
            node = Node(
                group.address,
                group.name,
                EventType.GROUP_STARTED,
                event.execution_status,
                None,
                None,
                group.group_id,
                self.last,
            )
            self._nodes[name] = node
        node.group, node.status, node.timestamp = group, event.execution_status, event.timestamp
        if group.is_complete:
            node.ended, node.seconds = self.last, event.execution_time
        else:
            node.began = self.last

    # -- the tree -----------------------------------------------------------------------------------------------------

    @property
    def is_ambiguous(self) -> bool:
        """Whether addresses do not say for every call which one made it."""
        several = {address for address, nodes in self._at.items() if len(nodes) > 1}
        return bool(several) and any(
            prefix in several for node in self._nodes.values() for prefix in addresses_around(node.address)
        )

    def roots(self, parents: Mapping[str, str] | None = None) -> list[Node]:
        """What was called by no other call. `parents` gives keys of calls by the keys of what they called."""
        self._join_tries()
        roots: list[Node] = []
        for node in self._nodes.values():
            node.parent = self._parent_of(node, parents or {})
            (roots if node.parent is None else node.parent.children).append(node)
        for node in self._nodes.values():
            node.children.sort(key=lambda child: (child.first if child.index is None else 0, child.index or 0))
            _mark_reused(node)
        return roots

    def _join_tries(self) -> None:
        """Of a call that failed and was made again, only the last try stays."""
        for name, node in list(self._nodes.items()):
            if node.key is None or name not in self._nodes:
                continue
            earlier = [node]
            while (again := self._nodes.get(again_key(bytes.fromhex(earlier[-1].key or "")).hex())) is not None:
                earlier.append(again)
            last = earlier.pop()
            if earlier:
                last.tries, last.first = len(earlier) + 1, node.first
            for each in earlier:
                self._last_try[each.key or ""] = last.key or ""
                del self._nodes[each.key or ""]
                self._at[each.address].remove(each)

    def _parent_of(self, node: Node, parents: Mapping[str, str]) -> Node | None:
        if not node.is_group and node.group_id is not None:
            group = self._nodes.get(f"group {node.group_id}")
            if group is not None:
                return group
        maker = "" if node.key is None else parents.get(node.key, "")
        known = self._nodes.get(self._last_try.get(maker, maker))
        if known is not None:
            return known
        for prefix in addresses_around(node.address):
            makers = [maker for maker in self._at.get(prefix, ()) if maker is not node]
            if makers:
                before = [maker for maker in makers if maker.first < node.first]
                return (before or makers)[-1]
        return None


def _before(members: PlainMembers, began: int) -> int:
    """How many of these ended before the group that they are of has begun for the last time."""
    return sum(end < began for end in members.ends) if began else 0


def _mark_reused(node: Node) -> None:
    older = [child for child in node.present if 0 < child.ended < node.began]
    # A group says how many it was; if these are not the same, some are of an earlier version of the program.
    recovered = len(older) + node.plain_before
    if node.group is None or not node.group.is_complete or node.group.recovered == recovered:
        for child in older:
            child.is_reused = True


def leave_out_content(nodes: Iterable[Node]) -> None:
    """Forget what calls were given and what they came to, also in words, here and in all that is below."""
    for node in nodes:
        node.message, node.result, node.given, node.tag, node.metadata = None, "", "", "", {}
        leave_out_content(node.children)


def record_of_node(node: Node, *, only_failed: bool = False) -> dict[str, Any]:
    """A node for programs, with all that is below it, or with what failed of that."""
    record: dict[str, Any] = {
        "address": node.address,
        "name": node.name,
        "kind": "group" if node.is_group else node.kind.value,
        "status": node.status.value,
        "key": node.key,
        "seconds": node.seconds,
    }
    if node.group is not None:
        counts = ("total", "completed", "failed", "cancelled", "recovered", "retries")
        record |= {name: getattr(node.group, name) for name in counts}
    else:
        record |= {"attempts": node.attempts, "tries": node.tries, "reused": node.is_reused}
        record |= {"message": node.message, "result": node.result or None, "input": node.given or None}
        if node.is_earlier:
            record["earlier"] = True
        if node.tag:
            record["tag"] = node.tag
        if node.metadata:
            record["metadata"] = dict(node.metadata)
    record["calls"] = records_of_nodes(node.children, only_failed=only_failed)
    return record


def records_of_nodes(nodes: list[Node], *, only_failed: bool) -> list[dict[str, Any]]:
    """The same for several: all of them, or those that failed and those in which something did."""
    return [record_of_node(node, only_failed=only_failed) for node in nodes if not only_failed or _has_failures(node)]


# -- showing it -------------------------------------------------------------------------------------------------------

_MARKS = {
    ExecutionStatus.STARTED: ("▶", "dim"),
    ExecutionStatus.RETRYING: ("↻", "yellow"),
    ExecutionStatus.COMPLETED: ("✓", "green"),
    ExecutionStatus.HUMAN_INTERVENTION: ("✓", "green"),
    ExecutionStatus.FAILED: ("✗", "red"),
    ExecutionStatus.CANCELLED: ("■", "yellow"),
    ExecutionStatus.AWAITING: ("?", "yellow"),
}
_WORDS = {
    ExecutionStatus.STARTED: "running",
    ExecutionStatus.RETRYING: "to be tried again",
    ExecutionStatus.CANCELLED: "cut off",
    ExecutionStatus.AWAITING: "waiting",
}


@dataclass(frozen=True, slots=True)
class TreeView:
    """Prints a tree. Of many calls below one call the first ones are shown, and all that is not as it should be.

    Attributes:
        is_running: whether a process executes the run; else what has begun and not ended was cut off.
        depth: levels that are shown; None for all.
        only_failed: only failed calls, with what they are in.
        shows_all: every call.
        waits: what calls under way wait for, by their keys.
    """

    page: Page
    is_running: bool = False
    depth: int | None = None
    only_failed: bool = False
    shows_all: bool = False
    waits: Mapping[str, str] = field(default_factory=dict)

    def show(self, nodes: list[Node], level: int = 0, plain: int = 0) -> None:
        """Print nodes and what is below them. Beside them there are so many of which there is nothing to be said."""
        if self.only_failed:
            shown = [node for node in nodes if _has_failures(node)]
            left_out: list[Node] = []
        else:
            shown, left_out = self._chosen(nodes, plain)
        for node in shown:
            self._show_node(node, level)
        if left_out:
            self.page.line(Part(f"… {_more(left_out, plain)}", "dim"), indent=2 * level)

    def _chosen(self, nodes: list[Node], plain: int) -> tuple[list[Node], list[Node]]:
        if self.shows_all or len(nodes) + plain <= _FEW:
            return nodes, []
        fine, troubled = 0, 0
        shown: list[Node] = []
        left_out: list[Node] = []
        for node in nodes:
            if node.is_group:
                chosen = True
            elif node.is_fine:
                fine += 1
                chosen = fine <= _FIRST
            else:
                troubled += 1
                chosen = troubled <= _MOST_TROUBLED or (node.has_failed and troubled <= 5 * _MOST_TROUBLED)
            (shown if chosen else left_out).append(node)
        return shown, left_out

    def _show_node(self, node: Node, level: int) -> None:
        indent = 2 * level
        below = _number_below(node) if self.depth is not None and level + 1 >= self.depth else 0
        if node.group is not None:
            self._show_group(node, node.group, indent, below)
        else:
            self._show_call(node, indent, below)
        if not below:
            is_told = node.is_group and not self.shows_all  # of a group it is said how many there are
            self.show(node.present if is_told else node.children, level + 1, node.plain)

    def _show_group(self, node: Node, group: ParallelEventGroup, indent: int, below: int) -> None:
        mark, style = self._mark(node)
        members = node.present
        # A group that was stopped counts the members that it kept from beginning as well.
        is_whole = group.is_complete and node.status not in (ExecutionStatus.CANCELLED, ExecutionStatus.AWAITING)
        done = group.finished if is_whole else node.plain + sum(child.status.is_final for child in members)
        failed = sum(child.has_failed for child in members)
        cancelled = group.cancelled if is_whole else 0
        total = group.total if not group.is_complete and group.total is not None and group.total > done else None
        self.page.line(
            Part(f"{mark} {harmless(node.name)}", style or "bold"),
            Part(f"{done:,}/{total:,} done" if total else f"{done:,} done", "", 1),
            Part(f"{failed:,} failed" if failed else "", "red", 2),
            Part(f"{cancelled:,} cancelled" if cancelled else "", "yellow", 4),
            Part(f"{group.recovered:,} reused" if group.recovered else "", "cyan", 3),
            Part(f"{group.retries:,} retried" if group.retries else "", "yellow", 5),
            Part("" if is_whole or self.is_running else "incomplete", "yellow", 4),
            Part(f"{node.earlier:,} of an earlier version" if node.earlier else "", "dim", 5),
            Part("" if node.seconds is None else f"in {duration(node.seconds)}", "dim", 6),
            Part(f"({below:,} below)" if below else "", "dim", 7),
            indent=indent,
        )

    def _show_call(self, node: Node, indent: int, below: int) -> None:
        mark, style = self._mark(node)
        self.page.line(
            Part(f"{mark} {_label(node)}", style),
            Part(f"#{harmless(node.tag, _LONGEST_TAG)}" if node.tag else "", "cyan", 2),
            Part(self._word(node), "yellow", 1),
            Part("" if node.seconds is None else duration(node.seconds), "dim", 3),
            Part(f"{node.attempts} attempts" if node.attempts > 1 else "", "yellow", 4),
            Part(f"try {node.tries}" if node.tries > 1 else "", "yellow", 4),
            Part("reused" if node.is_reused else "", "cyan", 3),
            Part("of an earlier version" if node.is_earlier else "", "dim", 3),
            Part(f"@{node.key[:SHORT_KEY]}" if node.key else "", "dim", 2),
            Part(f"({below:,} below)" if below else "", "dim", 5),
            Part(f"→ {node.result}" if node.result else "", "dim", 6, is_elastic=True),
            indent=indent,
        )
        if node.metadata:
            self.page.paragraph(harmless(brief(dict(node.metadata)), _LONGEST_MESSAGE), "dim", indent + 2)
        is_told_below = node.status is ExecutionStatus.AWAITING and node.kind is not EventType.QUESTION
        if node.message and not node.is_fine and not is_told_below:
            self.page.paragraph(harmless(node.message, _LONGEST_MESSAGE), style, indent + 2)
        if node.given and node.has_failed:
            self.page.line(
                Part(f"with {harmless(node.given, _LONGEST_INPUT)}", "dim", is_elastic=True), indent=indent + 2
            )

    def _mark(self, node: Node) -> tuple[str, str]:
        if node.group is not None and node.status is ExecutionStatus.COMPLETED:
            return ("✗", "red") if any(child.has_failed for child in node.present) else ("✓", "green")
        if node.is_superseded:
            return "↻", "yellow"
        mark, style = _MARKS.get(node.status, ("·", ""))
        return ("■", "yellow") if node.status is ExecutionStatus.STARTED and not self.is_running else (mark, style)

    def _word(self, node: Node) -> str:
        if node.is_superseded:
            return "to be made again"
        if node.status is ExecutionStatus.STARTED and not self.is_running:
            return "outcome unknown"
        if node.key is not None and node.key in self.waits and not node.has_outcome:
            return self.waits[node.key]
        return _WORDS.get(node.status, "")


def _label(node: Node) -> str:
    """The last part of the address, which is all that the line's indentation does not say."""
    if node.parent is not None and node.parent.is_group and node.index is not None:
        return harmless(f"[{node.index}] {node.name}".rstrip())
    if node.parent is not None:
        return harmless(node.address.removeprefix(node.parent.address + SEPARATOR) or node.name)
    return harmless(node.address or node.name)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_RESULT else text[: _LONGEST_RESULT - 1] + "…"


def _has_failures(node: Node) -> bool:
    return node.has_failed or any(_has_failures(child) for child in node.children)


def _number_below(node: Node) -> int:
    return node.plain + node.below_plain + sum(1 + _number_below(child) for child in node.children)


def _more(nodes: list[Node], plain: int) -> str:
    """`4,980 more completed, 12 more failed`; the plain ones are completed, and some such nodes are always there."""
    counts: dict[str, int] = {}
    for node in nodes:
        word = label_of(node.status)
        counts[word] = counts.get(word, 0) + 1
    if plain:
        completed = label_of(ExecutionStatus.COMPLETED)
        counts[completed] = counts.get(completed, 0) + plain
    return ", ".join(f"{count:,} more {word}" for word, count in counts.items())
