"""One `map` in many processes: shards, which are runs of their own, whose journals become part of that of their group.

The hard part is that a shard must be a unit of *ownership* and not of *identity*. Which process makes an item is a
matter of the moment: shards may be larger at the next start, or on another engine, or none at all, items may be
inserted and reordered, and nothing that was paid for may be paid for again. So:

*The group's process decides who a member is*, as in a group without shards: it pulls the items, numbers equal ones,
derives keys, and recovers what is recorded. Only members without an outcome are cut into shards, and each takes its
index, its key and its place in the program along. The worker numbers nothing (`rh_agents.core._group.members.Place`).

*A shard is a run*, whose input is its list of members (`shard`). Being the owner of a run, by its lease and its fence,
is being the one who executes the shard: there is no second claim beside that. Whoever executes it again repeats what
was in flight, and nothing else (`executing`).

*One journal tells what happened.* While shards are executed, the group's process reads their journals and takes over
what is in them (`driver`): batches of entries, of which the last one says up to where of which shard, in one
transaction. After a crash between any two of them each entry is there once. What has been taken over is recorded in the
run of the group like everything else, in the order in which the program gets it; so plans, forks, exports, validation
and the page know nothing of shards. A shard that is taken over to its end is deleted.

*The next start* first takes over what is left in shards that nobody executes, and deletes them. What a member had
called before it was cut off goes along when it is put into another shard (`Shard.earlier`): those calls have outcomes.

Alternatives: to let readers join the journals of shards (each reader of runs would need it, and so would forks); to let
workers write into the journal of the group (a journal has one owner, whose batches need no lock but the row of the
run); to give ranges of the input to workers (an item inserted at the front would be another item for each of them).
"""

from __future__ import annotations

from rh_agents.sharding.left import SHARDING

__all__ = ["SHARDING"]
