-- Everything that the store asks of SQLite. Places: a run with the number n has those from n * 2^40 + 1 to
-- n * 2^40 + 2^40 - 1, here as :first and :last. Lists of values in parentheses are repeated for many rows at a time;
-- those that are left over begin with NULL.
--
-- What is read in bulk comes as one row of JSON arrays, one for each column: fetching row by row gives up the
-- interpreter's lock for each of them, and a busy event loop takes milliseconds to give it back.

-- name: begin
BEGIN IMMEDIATE

-- name: begin_to_read
BEGIN DEFERRED

-- name: begin_exclusive
BEGIN EXCLUSIVE

-- name: commit
COMMIT

-- name: rollback
ROLLBACK

-- name: advance
UPDATE run
SET last_sequence = :last_sequence, outcomes = outcomes + :outcomes,
    heartbeat = heartbeat + 1, heartbeat_at = :now, updated_at = :now
WHERE number = :number AND fence = :fence AND last_sequence = :expected
RETURNING stop_requested

-- part: but_place
-- The columns of the journal but for the place.
timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
attempt, seconds, message, ok, more, call_checksum, checksum,
base, parent, epoch, tries, parent_attempt, artifact, size, outcome_more, outcome_checksum, value, input, input_checksum

-- part: rows_of_journal
SELECT * FROM (
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
) WHERE column1 IS NOT NULL

-- name: insert
INSERT OR ROLLBACK INTO journal (
  place, {but_place}
)
{rows_of_journal}

-- name: begin_copy
-- A copied journal is gathered where nobody waits for the lock, and then moved over at once.
CREATE TEMP TABLE copied AS SELECT * FROM journal WHERE false

-- name: copy
INSERT INTO temp.copied
{rows_of_journal}

-- name: add_copied
INSERT INTO journal (
  place, {but_place}
)
SELECT
  place + :before, {but_place}
FROM temp.copied ORDER BY rowid

-- name: end_copy
DROP TABLE IF EXISTS temp.copied

-- name: is_run
SELECT 1 FROM run WHERE run_id = :run_id

-- part: lease
stop_requested, (
  SELECT json_group_array(json_array(hex(key), until) ORDER BY key) FROM watching WHERE watching.run = run.number
), (SELECT count(*) FROM control WHERE control.run = run.number)

-- name: renew
UPDATE run SET heartbeat = heartbeat + 1, heartbeat_at = :now
WHERE number = :number AND fence = :fence
RETURNING {lease}

-- name: say
INSERT INTO present (run, at, facts, checksum)
SELECT number, :at, :facts, :checksum FROM run WHERE number = :number AND fence = :fence
ON CONFLICT (run) DO UPDATE SET at = excluded.at, facts = excluded.facts, checksum = excluded.checksum

-- name: read_present
SELECT at, facts, checksum FROM present WHERE run = :number

-- name: look
SELECT {lease}
FROM run WHERE number = :number AND fence = :fence

-- name: standing
SELECT fence, last_sequence, status, owner, stop_requested FROM run WHERE number = :number

-- name: create_run
INSERT INTO run (
  run_id, status, epoch, workflow, input_digest, tags, facts, created_at, updated_at, ended_at, owner, process,
  fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
  queue, flow, priority, ready_at, claims, parent,
  name_checksum, checksum, status_checksum, holder_checksum, queue_checksum
)
VALUES (
  :run_id, :status, :epoch, :workflow, :input_digest, :tags, :facts, :created_at, :updated_at, :ended_at, :owner, :process,
  :fence, :heartbeat, :heartbeat_at, :lease, 0, 0, :reason, :stop_requested, :forked_from,
  :queue, :flow, :priority, :ready_at, :claims, :parent,
  :name_checksum, :checksum, :status_checksum, :holder_checksum, :queue_checksum
)
ON CONFLICT (run_id) DO NOTHING
RETURNING number

-- name: replace_run
UPDATE run
SET status = :status, epoch = :epoch, workflow = :workflow, input_digest = :input_digest, tags = :tags, facts = :facts,
    updated_at = :updated_at, ended_at = :ended_at, owner = :owner, process = :process,
    fence = :fence, heartbeat = :heartbeat, heartbeat_at = :heartbeat_at, lease = :lease,
    reason = :reason, stop_requested = :stop_requested, forked_from = :forked_from,
    queue = :queue, flow = :flow, priority = :priority, ready_at = :ready_at, claims = :claims, parent = :parent,
    name_checksum = :name_checksum, checksum = :checksum, status_checksum = :status_checksum,
    holder_checksum = :holder_checksum, queue_checksum = :queue_checksum
WHERE number = :number AND fence = :expected_fence AND heartbeat = :expected_heartbeat
RETURNING number

-- name: put_input
INSERT INTO run_input (run, input) VALUES (:number, :input)
ON CONFLICT (run) DO UPDATE SET input = excluded.input WHERE input <> excluded.input

-- name: release_run
UPDATE run
SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL, holder_checksum = :holder_checksum
WHERE number = :number AND fence = :fence
RETURNING number

-- name: release_run_as
UPDATE run
SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL, holder_checksum = :holder_checksum,
    status = :status, reason = :reason, updated_at = :now, ended_at = :ended_at, status_checksum = :status_checksum,
    ready_at = CASE WHEN stop_requested IS NULL THEN :ready_at END, claims = :claims,
    queue_checksum = CASE WHEN stop_requested IS NULL THEN :queue_checksum ELSE :stopped_checksum END
WHERE number = :number AND fence = :fence
RETURNING number

-- name: is_held
SELECT 1 FROM run WHERE number = :number AND fence = :fence

-- name: children
SELECT
  number, run_id, status, reason, claims, owner, process, fence, heartbeat, heartbeat_at, lease, last_sequence, ready_at
FROM run WHERE parent = :number ORDER BY number

-- name: children_to_stop
-- :tag is a JSON string, which stands among the tags of the children of one group
SELECT number, queue, flow, priority, ready_at, claims, parent FROM run
WHERE parent = :number AND (:tag IS NULL OR instr(tags, :tag) > 0)

-- name: stop_child
UPDATE run SET stop_requested = :reason, ready_at = NULL, queue_checksum = :queue_checksum WHERE number = :number

-- name: find_mark
-- The last event of a range that has a text among its rarer facts.
SELECT place FROM journal WHERE place > :after AND place <= :until AND instr(more, :text) > 0
ORDER BY place DESC LIMIT 1

-- name: delete_journal
DELETE FROM journal WHERE place BETWEEN :first AND :last

-- name: shorten_run
-- Of a run that is being deleted, before a part of its journal from its end is: see `rh_agents.stores._deleting`.
UPDATE run
SET last_sequence = :last_sequence,
  outcomes = outcomes - (SELECT count(ok) FROM journal WHERE place BETWEEN :first AND :last)
WHERE number = :number

-- name: delete_questions
DELETE FROM question WHERE run = :number

-- name: delete_run
DELETE FROM run WHERE number = :number

-- name: strip_run
UPDATE run
SET facts = :facts, reason = :reason, name_checksum = :name_checksum, checksum = :checksum,
    status_checksum = :status_checksum
WHERE number = :number AND fence = :fence
RETURNING number

-- name: delete_input
DELETE FROM run_input WHERE run = :number

-- name: delete_beside
DELETE FROM present WHERE run = :number;
DELETE FROM control WHERE run = :number;
DELETE FROM streaming WHERE run = :number;
DELETE FROM watching WHERE run = :number

-- name: rewrite
-- The one change of what a journal says: see `rh_agents.stores._erasing`.
UPDATE journal
SET message = :message, more = :more, call_checksum = :call_checksum, checksum = :checksum, value = :value,
    outcome_checksum = :outcome_checksum, artifact = NULL, size = NULL, input = NULL, input_checksum = NULL
WHERE place = :place

-- name: delete_cached_keys
DELETE FROM cached WHERE key IN (SELECT unhex(value) FROM json_each(:keys))

-- name: is_erased
SELECT 1 FROM run WHERE run_id = :run_id AND instr(facts, '"rh_agents.erased_at"') > 0

-- name: ask
INSERT INTO question (
  run, id, address, text, schema, asked_at, answer, answered_at, answered_by, problem,
  name_checksum, checksum, answer_checksum
)
VALUES (
  :number, :id, :address, :text, :schema, :asked_at, :answer, :answered_at, :answered_by, :problem,
  :name_checksum, :checksum, :answer_checksum
)
ON CONFLICT (run, id) DO NOTHING

-- name: reject_answer
UPDATE question
SET answer = NULL, answered_at = NULL, answered_by = NULL, problem = :problem, answer_checksum = :answer_checksum
WHERE run = :number AND id = :id

-- name: answer
UPDATE question
SET answer = :answer, answered_at = :now, answered_by = :by, problem = NULL, answer_checksum = :answer_checksum
WHERE run = :number AND id = :id AND answer IS NULL
RETURNING id

-- name: request_stop
UPDATE run SET stop_requested = :reason WHERE number = :number

-- name: watch
INSERT INTO watching (run, key, until, checksum) VALUES (:number, :key, :until, :checksum)
ON CONFLICT (run, key) DO UPDATE SET until = excluded.until, checksum = excluded.checksum

-- name: forget_watchers
DELETE FROM watching WHERE run = :number AND until < :before

-- name: watched_until
SELECT until FROM watching WHERE run = :number AND key = :key

-- name: put_piece
INSERT INTO streaming (run, key, attempt, position, text, at, checksum)
VALUES (:number, :key, :attempt, :position, :text, :at, :checksum)
ON CONFLICT (run, key, attempt, position) DO UPDATE
SET text = excluded.text, at = excluded.at, checksum = excluded.checksum

-- name: cut_pieces
DELETE FROM streaming WHERE run = :number AND key = :key AND (attempt, position) < (:attempt, :position)

-- name: delete_pieces_of
DELETE FROM streaming WHERE run = :number AND key = :key

-- name: delete_pieces
DELETE FROM streaming WHERE run = :number

-- name: pieces
SELECT key, attempt, position, text, at, checksum FROM streaming
WHERE run = :number AND at > :after ORDER BY at, key, attempt, position

-- name: pieces_of_call
SELECT key, attempt, position, text, at, checksum FROM streaming
WHERE run = :number AND key = :key AND at > :after ORDER BY at, attempt, position

-- part: runs
SELECT
  run.number, run.run_id, run.status, run.epoch, run.workflow, run_input.input, run.input_digest, run.tags, run.facts,
  run.created_at, run.updated_at, run.ended_at, run.owner, run.process, run.fence, run.heartbeat, run.heartbeat_at,
  run.lease, run.last_sequence, run.outcomes, run.reason, run.stop_requested, run.forked_from,
  run.queue, run.flow, run.priority, run.ready_at, run.claims, run.parent,
  run.name_checksum, run.checksum, run.status_checksum, run.holder_checksum, run.queue_checksum
FROM run LEFT JOIN run_input ON run_input.run = run.number

-- name: find_run
{runs}
WHERE run.run_id = :run_id OR run.name_checksum = :named

-- part: are_listed
-- :tag is a JSON string, :kinds and :forks_of are JSON arrays. Of tags that cannot be read, nobody knows what they are.
WHERE (:status IS NULL OR run.status = :status)
  AND (
    :kinds IS NULL OR (run.owner IS NOT NULL AND instr(:kinds, '"running"') > 0)
    OR instr(:kinds, CASE
      WHEN run.status IN ('completed', 'failed', 'cancelled') THEN '"' || run.status || '"'
      WHEN run.status = 'awaiting' THEN '"waiting"'
      WHEN run.status = 'pending' AND run.queue IS NOT NULL THEN '"pending"'
      ELSE '"interrupted"'
    END) > 0
  )
  AND (
    :tag IS NULL OR instr(run.tags, :tag) > 0
    AND CASE WHEN json_valid(run.tags) THEN :tag ->> '$' IN (SELECT value FROM json_each(run.tags)) ELSE true END
  )
  AND (:text IS NULL OR instr(lower(run.run_id), :text) > 0 OR instr(lower(run.workflow), :text) > 0)
  AND (:updated_since IS NULL OR run.updated_at >= :updated_since)
  AND (:updated_before IS NULL OR run.updated_at < :updated_before)
  AND (:forks_of IS NULL OR run.forked_from IN (SELECT value FROM json_each(:forks_of)))
  AND (:owned IS NULL OR (run.owner IS NOT NULL) = :owned)
  AND run.number < coalesce(:behind, 1 << 62)
  AND (:parts OR run.parent IS NULL)

-- name: list_runs
{runs}
{are_listed}
ORDER BY run.number DESC
LIMIT :limit

-- name: count_runs
SELECT count(*) FROM run
{are_listed}

-- name: tags_of_runs
-- as bytes, since one that is damaged may be no text
SELECT DISTINCT CAST(tags AS BLOB) FROM run WHERE parent IS NULL AND tags <> '[]'

-- name: look_at_queue
-- The leases of the runs that somebody executes; then, without one, what the runs need that a worker may take now, of many
-- such runs the first ones. Neither has what the worker cannot do: :without is a JSON array of flows.
SELECT number, fence, heartbeat, lease, process, run_id, flow FROM run INDEXED BY run_ready
WHERE queue = :queue AND ready_at <= :now AND owner IS NOT NULL AND flow NOT IN (SELECT value FROM json_each(:without))
UNION ALL
SELECT DISTINCT NULL, NULL, NULL, NULL, NULL, NULL, flow FROM (
  SELECT flow FROM run INDEXED BY run_ready
  WHERE queue = :queue AND ready_at <= :now AND owner IS NULL
    AND status IN ('pending', 'started', 'awaiting') AND flow NOT IN (SELECT value FROM json_each(:without))
  LIMIT 200
)

-- name: next_in_queue
-- :flows and :silent are JSON arrays: of what the worker can do, and of owners [number, fence, heartbeat] that are gone.
SELECT
  run.number, run.run_id, run.status, run.epoch, run.workflow, run_input.input, run.input_digest, run.tags, run.facts,
  run.created_at, run.updated_at, run.ended_at, run.owner, run.process, run.fence, run.heartbeat, run.heartbeat_at,
  run.lease, run.last_sequence, run.outcomes, run.reason, run.stop_requested, run.forked_from,
  run.queue, run.flow, run.priority, run.ready_at, run.claims, run.parent,
  run.name_checksum, run.checksum, run.status_checksum, run.holder_checksum, run.queue_checksum
FROM run INDEXED BY run_next LEFT JOIN run_input ON run_input.run = run.number
WHERE run.queue = :queue AND run.ready_at <= :now AND run.status IN ('pending', 'started', 'awaiting')
  AND run.flow IN (SELECT value FROM json_each(:flows))
  AND (
    run.owner IS NULL OR json_array(run.number, run.fence, run.heartbeat) IN (SELECT value FROM json_each(:silent))
  )
ORDER BY run.priority DESC, run.ready_at, run.number
LIMIT 1 OFFSET :offset

-- name: sleeping
-- A run that waits, and that no one executes; what is written of it then must fit its checksum.
SELECT queue, flow, priority, ready_at, claims, parent FROM run
WHERE number = :number AND queue IS NOT NULL AND owner IS NULL AND status = 'awaiting'

-- name: wake
UPDATE run SET ready_at = :ready_at, queue_checksum = :queue_checksum WHERE number = :number

-- name: is_answered
SELECT 1 FROM question
WHERE run = :number AND id IN (SELECT value FROM json_each(:ids)) AND answer IS NOT NULL LIMIT 1

-- name: names_of_runs
-- for runs of which one has text that is none: names as bytes
SELECT number, CAST(run_id AS BLOB)
FROM run
{are_listed}
ORDER BY number DESC
LIMIT :limit

-- name: read_calls
SELECT
  json_group_array(place), json_group_array(status), CAST(string_agg(coalesce(key, zeroblob(32)), '') AS BLOB),
  json_group_array(attempt), json_group_array(group_id), json_group_array(ok),
  json_group_array(CASE WHEN more IS NOT NULL THEN json_array(name, more) END),
  json_group_array(CASE WHEN ok = 0 THEN json_array(epoch, tries, parent_attempt) END),
  json_group_array(call_checksum)
FROM (
  SELECT place, status, key, attempt, group_id, ok, name, more, epoch, tries, parent_attempt, call_checksum
  FROM journal WHERE place > :after AND place <= :last ORDER BY place LIMIT :limit
)

-- part: events_as_json
SELECT
  json_group_array(
    json_array(
      place, timestamp, status, event_type, name, address, hex(key), group_id, parallel_index, group_total,
      attempt, seconds, message, ok, more, checksum
    )
  )
FROM (
  SELECT
    place, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
    attempt, seconds, message, ok, more, checksum
  FROM journal

-- name: read_events
{events_as_json} WHERE place > :after AND place <= :last ORDER BY place LIMIT :limit
)

-- part: outcomes_as_json
-- The values are separated by a character that no JSON text contains.
SELECT
  json_group_array(
    json_array(
      place, hex(key), ok, hex(base), base IS NULL, hex(parent), epoch, tries, parent_attempt, lower(hex(artifact)),
      outcome_more, size, name, address, seconds, attempt, group_id, outcome_checksum
    )
  ),
  CAST(string_agg(coalesce(value, ''), char(30)) AS BLOB)
FROM (
  SELECT
    place, key, ok, base, parent, epoch, tries, parent_attempt, artifact, outcome_more, size, name, address, seconds, attempt,
    group_id, outcome_checksum, value
  FROM journal

-- name: read_outcomes
{outcomes_as_json} WHERE place > :after AND place <= :last AND ok IS NOT NULL ORDER BY place LIMIT :limit
)

-- name: read_inputs
-- What calls were called with, where that is recorded.
SELECT place, input, input_checksum FROM journal
WHERE place > :after AND place <= :until AND coalesce(input, input_checksum) IS NOT NULL ORDER BY place

-- name: read_inputs_at
SELECT place, input, input_checksum FROM journal
WHERE place IN (SELECT value FROM json_each(:places)) AND coalesce(input, input_checksum) IS NOT NULL ORDER BY place

-- part: waited
-- For how many seconds a call waited: it stands at the beginning of `more` if it did.
CASE WHEN substr(more, 1, 11) = '{"waited": ' THEN CAST(substr(more, 12) AS REAL) ELSE 0.0 END

-- part: cost
CASE WHEN instr(more, '"usage":') > 0 THEN coalesce(more ->> '$.usage.cost', 0.0) ELSE 0.0 END

-- part: is_wanted
-- Which calls are wanted. Letters of ASCII are equal in either case. (LIKE looks at no text behind a NUL.)
(:status IS NULL OR status = :status) AND (:group_id IS NULL OR group_id = :group_id)
AND (
  :actor IS NULL OR (name = :actor OR instr(more, :actor_in_more) > 0) AND
  CASE
    WHEN more IS NULL OR instr(more, '"actor":') = 0 THEN name = :actor
    WHEN coalesce(more ->> '$.kind', event_type) = 'function_call' AND name <> '' THEN name = :actor
    ELSE more -> '$.actor' = :actor_in_more
  END
)
AND (
  :text IS NULL OR instr(lower(address), :text) > 0 OR instr(lower(coalesce(message, '')), :text) > 0
)
AND (:min_time IS NULL OR timestamp >= :min_time)
AND (:max_time IS NULL OR timestamp - coalesce(seconds, 0.0) <= :max_time)
AND (:min_seconds IS NULL OR coalesce(seconds, 0.0) >= :min_seconds)
AND (:max_seconds IS NULL OR coalesce(seconds, 0.0) <= :max_seconds)
AND (:min_attempts IS NULL OR attempt >= :min_attempts) AND (:max_attempts IS NULL OR attempt <= :max_attempts)
AND (:min_cost IS NULL OR {cost} >= :min_cost) AND (:max_cost IS NULL OR {cost} <= :max_cost)
AND (:min_waited IS NULL OR {waited} >= :min_waited) AND (:max_waited IS NULL OR {waited} <= :max_waited)

-- name: moments
-- When the first call that ended in a part of the journal began, and when the last one ended.
SELECT min(timestamp - coalesce(seconds, 0.0)), max(timestamp)
FROM journal WHERE place > :after AND place <= :until AND ok IS NOT NULL

-- name: find_calls
-- Calls that have ended, in the order in which they did. What has an outcome that counts for nothing is among them; whoever
-- asks leaves that out.
SELECT place FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL
  AND {is_wanted}
ORDER BY place LIMIT :limit

-- name: find_calls_back
-- The same, the newest first.
SELECT place FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL
  AND {is_wanted}
ORDER BY place DESC LIMIT :limit

-- name: find_failures
-- The same, of those that are no success: these have an index of their own.
SELECT place FROM journal INDEXED BY journal_failed
WHERE place > :after AND place <= :until AND ok = 0
  AND {is_wanted}
ORDER BY place LIMIT :limit

-- name: find_failures_back
SELECT place FROM journal INDEXED BY journal_failed
WHERE place > :after AND place <= :until AND ok = 0
  AND {is_wanted}
ORDER BY place DESC LIMIT :limit

-- part: calls_by_value
-- What calls of a part of the journal are sorted by, and where they stand.
SELECT value, place FROM (
  SELECT
    CASE :order
      WHEN 'seconds' THEN coalesce(seconds, 0.0)
      WHEN 'attempts' THEN attempt
      WHEN 'status' THEN status
      WHEN 'address' THEN address
      WHEN 'message' THEN coalesce(message, '')
      WHEN 'cost' THEN {cost}
      WHEN 'waited' THEN {waited}
      WHEN 'worked' THEN coalesce(seconds, 0.0) - {waited}
      WHEN 'tokens' THEN CASE
        WHEN instr(more, '"usage":') > 0
        THEN coalesce(more ->> '$.usage.input_tokens', 0) + coalesce(more ->> '$.usage.output_tokens', 0)
        ELSE 0
      END
    END AS value,
    place
  FROM journal
  WHERE place > :after AND place <= :until AND ok IS NOT NULL
    AND {is_wanted}
)

-- name: sort_calls
-- The least of a part of the journal first.
{calls_by_value} WHERE :value IS NULL OR value > :value OR (value = :value AND place > :behind)
ORDER BY value, place LIMIT :limit

-- name: sort_calls_back
-- The greatest of a part of the journal first; what is equal stays in the order of the journal.
{calls_by_value} WHERE :value IS NULL OR value < :value OR (value = :value AND place > :behind)
ORDER BY value DESC, place LIMIT :limit

-- name: failed_rows
-- What went wrong, and in which call, without values.
SELECT place, address, name, more, event_type, message, key, base FROM journal INDEXED BY journal_failed
WHERE place > :after AND place <= :until AND ok = 0 AND status = 'failed' ORDER BY place LIMIT :limit

-- name: tried_again
-- Outcomes of calls that were made again: of the same place in the program there are others.
SELECT place, key, base, group_id FROM journal INDEXED BY journal_tried_again
WHERE place > :after AND place <= :until AND base IS NOT NULL AND ok IS NOT NULL ORDER BY place LIMIT :limit

-- name: outcomes_of_keys
SELECT place, key, group_id FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL
  AND key IN (SELECT unhex(value) FROM json_each(:keys)) ORDER BY place

-- name: failures_of_keys
SELECT place, key, group_id FROM journal INDEXED BY journal_failed
WHERE place > :after AND place <= :until AND ok = 0
  AND key IN (SELECT unhex(value) FROM json_each(:keys)) ORDER BY place

-- name: events_of_key
SELECT place FROM journal WHERE place > :after AND place <= :until AND key = :key ORDER BY place LIMIT :limit

-- name: find_children
SELECT place FROM journal
WHERE place > :after AND place <= :until AND parent = :parent AND ok IS NOT NULL ORDER BY place LIMIT :limit

-- name: find_named
-- Outcomes of calls that somebody may mean: by a name or an address, by what an address ends with, by the beginning of a key.
SELECT place FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL
  AND (
    name IN (SELECT value FROM json_each(:names)) OR address IN (SELECT value FROM json_each(:names))
    OR (:parts <> '[]' AND EXISTS (SELECT 1 FROM json_each(:parts) WHERE instr(address, value) > 0))
    OR (:keys <> '[]' AND EXISTS (SELECT 1 FROM json_each(:keys) WHERE substr(lower(hex(journal.key)), 1, length(value)) = value))
  )
ORDER BY place

-- name: ended_keys
SELECT CAST(string_agg(key, '') AS BLOB)
FROM (
  SELECT place, key FROM journal WHERE place > :after AND place <= :until AND ok IS NOT NULL AND key IS NOT NULL ORDER BY place
)

-- name: read_kinds
-- The keys of outcomes; and of other events of calls, s for a start or one more attempt and e for another one, with the key
-- and the place.
SELECT
  count(*),
  CAST(string_agg(key, '') FILTER (WHERE ok IS NOT NULL) AS BLOB),
  string_agg(CASE WHEN status IN ('started', 'retrying') THEN 's' ELSE 'e' END, '') FILTER (WHERE ok IS NULL AND key IS NOT NULL),
  CAST(string_agg(key, '') FILTER (WHERE ok IS NULL) AS BLOB),
  json_group_array(place) FILTER (WHERE ok IS NULL AND key IS NOT NULL)
FROM (SELECT place, key, ok, status FROM journal WHERE place > :after AND place <= :until ORDER BY place)

-- name: count_groups
SELECT group_id, count(*) FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL AND group_id IS NOT NULL GROUP BY 1

-- name: tallies
-- The events of a run, counted: values are not read. Nearly all events of a map have the same text in `more`, so that is
-- looked into once for all of them. :later are the places of outcomes that count for nothing, since their calls had one before.
WITH alike AS (
  SELECT
    event_type, group_id, status, ok IS NOT NULL AS has_outcome,
    place IN (SELECT value FROM json_each(:later)) AS is_repeated,
    CASE
      WHEN substr(more, 1, 9) = '{"actor":' AND instr(more, '"kind"') = 0 AND event_type <> 'function_call' THEN NULL
      ELSE name
    END AS name,
    more, count(*) AS events, min(timestamp) AS first_at, max(timestamp) AS last_at, min(place) AS first
  FROM journal WHERE place > :after AND place <= :until
  GROUP BY 1, 2, 3, 4, 5, 6, 7
),
said AS (
  SELECT
    *, more -> '$.actor' AS actor, coalesce(more ->> '$.kind', event_type) AS kind, more -> '$.usage' AS used,
    coalesce(more ->> '$.from_cache', status = 'recovered') AS is_free
  FROM alike
)
SELECT
  event_type, group_id, status, has_outcome, is_repeated, CASE WHEN actor IS NULL OR kind = 'function_call' THEN name END,
  actor, kind, is_free, sum(events), min(first_at), max(last_at), count(used),
  sum(events * (used ->> '$.input_tokens')), sum(events * (used ->> '$.output_tokens')),
  sum(events * (used ->> '$.cached_tokens')), sum(events * (used ->> '$.reasoning_tokens')),
  sum(events * (used ->> '$.requests')), sum(events * (used ->> '$.cost')),
  sum(events * (used ->> '$.cache_write_tokens')), sum(events * (used ->> '$.estimates')),
  sum(events * (used ->> '$.long_cache_write_tokens'))
FROM said
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
ORDER BY min(CASE WHEN used IS NOT NULL THEN first END)

-- name: read_members
-- What tells which calls have nothing to say but that they began and have succeeded, as columns (see
-- `rh_agents.stores._outlining`): c stands for such an outcome of a member or of a call that another one made, s for a start
-- or one more attempt, x for anything else about a call, b and e for the begin and the end of a group. The last column says
-- what the members of an actor have in common.
SELECT
  count(*), max(place),
  string_agg(
    CASE
      WHEN key IS NULL THEN CASE
        WHEN event_type = 'group_started' AND status = 'started' AND group_id IS NOT NULL THEN 'b'
        WHEN event_type = 'group_completed' AND status = 'completed' AND group_id IS NOT NULL THEN 'e'
        ELSE '-'
      END
      WHEN (group_id IS NULL) <> (parallel_index IS NULL) THEN 'x'
      WHEN ok = 1 AND status = 'completed' AND base IS NULL AND (group_id IS NOT NULL OR length(parent) = 32) THEN 'c'
      WHEN ok IS NULL AND status IN ('started', 'retrying') THEN 's'
      ELSE 'x'
    END, ''
  ),
  CAST(string_agg(coalesce(key, zeroblob(32)), '') AS BLOB), json_group_array(group_id), json_group_array(parallel_index),
  json_group_array(
    CASE WHEN ok = 1 THEN
      hex(parent) || char(31) || CASE WHEN substr(more, 1, 9) = '{"actor":' THEN '' ELSE name END || char(31)
      || CASE
        WHEN more IS NULL OR (instr(more, '"actor":') = 0 AND instr(more, '"version":') = 0) THEN '{}'
        WHEN instr(more, ',') = 0 THEN more
        ELSE json_object('actor', json(more -> '$.actor'), 'version', json(more -> '$.version'))
      END
    END
  ),
  max(instr(more, '"usage":')) > 0
FROM (
  SELECT place, key, event_type, group_id, parallel_index, ok, status, base, parent, more, name
  FROM journal WHERE place > :after AND place <= :until ORDER BY place LIMIT :limit
)

-- name: addresses_at
SELECT json_group_array(json_array(event_type, group_id, hex(key), address))
FROM journal WHERE place IN (SELECT value FROM json_each(:places))

-- name: keys_at
SELECT DISTINCT key FROM journal
WHERE place > :after AND place <= :until AND key IS NOT NULL AND address IN (SELECT value FROM json_each(:addresses))

-- name: read_events_at
{events_as_json} WHERE place IN (SELECT value FROM json_each(:places)) ORDER BY place
)

-- name: read_outcomes_at
{outcomes_as_json} WHERE place IN (SELECT value FROM json_each(:places)) AND ok IS NOT NULL ORDER BY place
)

-- name: activity_buckets
-- What happened in pieces of time of :width seconds, by what stands in addresses up to the last "[", which is the innermost
-- group. (SQLite trims no NUL: an address that has one is given as it is.) What a call has waited stands at the beginning of `more`, if it has.
SELECT
  CASE
    WHEN instr(address, '[') = 0 THEN ''
    WHEN instr(address, char(0)) > 0 THEN address
    ELSE rtrim(address, replace(address, '[', ''))
  END,
  floor(timestamp / :width), min(place), sum(ok IS NOT NULL AND status IN ('completed', 'recovered')),
  sum(ok IS NOT NULL AND status = 'failed'), sum(status = 'retrying'),
  sum(status = 'awaiting' OR (ok IS NOT NULL AND coalesce(substr(more, 1, 11) = '{"waited": ', 0)))
FROM journal
WHERE place > :after AND place <= :until AND key IS NOT NULL AND (ok IS NOT NULL OR status IN ('retrying', 'awaiting'))
GROUP BY 1, 2

-- name: activity_durations
-- How long calls took, in buckets as `rh_agents/core/_base/latency.py` has them. Nearly all events of a map have the same
-- text in `more`, so that it is grouped by, and looked into afterwards. The name is of no interest where that says whose
-- call it is.
SELECT
  CASE WHEN substr(more, 1, 9) = '{"actor":' AND instr(more, '"kind"') = 0 AND event_type <> 'function_call' THEN ''
  ELSE name END,
  event_type, more, CASE WHEN substr(more, 1, 11) = '{"waited": ' THEN seconds END,
  CASE WHEN seconds <= :smallest THEN 0 ELSE CAST(log2(seconds) * :per_doubling + :offset AS INTEGER) END,
  count(*), sum(seconds), max(seconds)
FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL AND seconds IS NOT NULL AND key IS NOT NULL
GROUP BY 1, 2, 3, 4, 5

-- name: activity_slowest
SELECT place, key, address, name, event_type, more, seconds FROM journal
WHERE place > :after AND place <= :until AND ok IS NOT NULL AND seconds IS NOT NULL AND key IS NOT NULL
ORDER BY seconds - {waited} DESC, place LIMIT :limit

-- name: activity_groups
SELECT timestamp, more FROM journal
WHERE place > :after AND place <= :until AND event_type IN ('group_started', 'group_ending', 'group_completed')
  AND more IS NOT NULL
ORDER BY place

-- name: activity_totals
SELECT group_id, max(group_total) FROM journal
WHERE place > :after AND place <= :until AND group_total IS NOT NULL AND key IS NOT NULL AND group_id IS NOT NULL
GROUP BY 1

-- part: questions
SELECT
  run.run_id, question.id, question.address, question.text, question.schema, question.asked_at,
  question.answer, question.answered_at, question.answered_by, question.problem,
  question.name_checksum, question.checksum, question.answer_checksum

-- name: find_question
{questions}
FROM question CROSS JOIN run ON run.number = question.run
WHERE (question.run = :number AND question.id = :id) OR question.name_checksum = :named

-- name: questions
{questions}
FROM question CROSS JOIN run ON run.number = question.run
ORDER BY question.asked_at

-- name: open_questions
{questions}
FROM question INDEXED BY question_open CROSS JOIN run ON run.number = question.run
WHERE question.answer IS NULL
ORDER BY question.asked_at

-- name: questions_of_run
{questions}
FROM run CROSS JOIN question ON question.run = run.number
WHERE run.run_id = :run_id
ORDER BY question.asked_at

-- name: is_used_artifact
SELECT 1 FROM journal WHERE artifact = :artifact LIMIT 1

-- name: size_of_journal
SELECT
  coalesce(sum(octet_length(value)), 0) + coalesce(sum(octet_length(more)), 0)
  + coalesce(sum(octet_length(outcome_more)), 0) + coalesce(sum(octet_length(message)), 0)
  + coalesce(sum(octet_length(key)), 0) + coalesce(sum(octet_length(parent)), 0)
  + coalesce(sum(octet_length(name) + octet_length(address)), 0)
FROM journal WHERE place > :after AND place <= :until

-- name: own_artifacts
-- The artifacts that a part of a run uses and no other run does, with their sizes.
SELECT lower(hex(artifact)), coalesce(max(size), 0)
FROM journal
WHERE place > :after AND place <= :until AND artifact IS NOT NULL AND NOT EXISTS (
  SELECT 1 FROM journal AS other
  WHERE other.artifact = journal.artifact AND (other.place < :first OR other.place > :last)
)
GROUP BY artifact

-- name: check_integrity
PRAGMA integrity_check(100)

-- name: check_foreign_keys
PRAGMA foreign_key_check

-- name: check_sequences
SELECT run.run_id, run.last_sequence, count(journal.place) AS events, min(journal.place) AS least, max(journal.place) AS most
FROM run LEFT JOIN journal ON journal.place BETWEEN (run.number << 40) AND ((run.number + 1) << 40) - 1
GROUP BY run.number
HAVING events <> run.last_sequence
  OR (events > 0 AND (least <> (run.number << 40) + 1 OR most <> (run.number << 40) + run.last_sequence))

-- name: check_counts
SELECT run.run_id, run.outcomes, count(journal.ok) AS found
FROM run LEFT JOIN journal ON journal.place BETWEEN (run.number << 40) AND ((run.number + 1) << 40) - 1
GROUP BY run.number
HAVING run.outcomes NOT IN (found, count(DISTINCT CASE WHEN journal.ok IS NOT NULL THEN journal.key END))

-- name: check_events_without_run
SELECT place >> 40, count(*) FROM journal
WHERE NOT EXISTS (SELECT 1 FROM run WHERE run.number = journal.place >> 40)
GROUP BY place >> 40

-- name: check_outcomes
SELECT coalesce(run.run_id, journal.place >> 40), journal.place & ((1 << 40) - 1), CASE
    WHEN journal.ok IS NULL THEN 'is there, though its event reports none'
    WHEN journal.key IS NULL OR journal.parent IS NULL THEN 'is of no call'
    ELSE 'has neither a value nor an artifact, or both'
  END
FROM journal LEFT JOIN run ON run.number = journal.place >> 40
WHERE CASE
    WHEN journal.ok IS NULL THEN coalesce(
      journal.base, journal.parent, journal.epoch, journal.tries, journal.parent_attempt, journal.artifact, journal.size,
      journal.outcome_more, journal.outcome_checksum, journal.value
    ) IS NOT NULL
    ELSE journal.key IS NULL OR journal.parent IS NULL OR (journal.value IS NULL) = (journal.artifact IS NULL)
  END

-- name: check_calls
SELECT run.run_id, hex(key), place & ((1 << 40) - 1), first & ((1 << 40) - 1)
FROM (
  SELECT place, key, min(place) OVER (PARTITION BY place >> 40, key) AS first FROM journal WHERE ok IS NOT NULL
) JOIN run ON run.number = place >> 40
WHERE place > first
ORDER BY place

-- part: cached
SELECT key, CAST(value AS BLOB), actor, created_at, expires_at, run_id, checksum FROM cached

-- name: find_cached
{cached}
WHERE key = :key AND (expires_at IS NULL OR expires_at > :now)

-- name: read_cached
{cached}
WHERE key > :after ORDER BY key LIMIT :limit

-- name: put_cached
INSERT INTO cached (key, value, actor, created_at, expires_at, run_id, checksum)
VALUES (:key, :value, :actor, :created_at, :expires_at, :run_id, :checksum)
ON CONFLICT (key) DO UPDATE SET
  value = excluded.value, actor = excluded.actor, created_at = excluded.created_at,
  expires_at = excluded.expires_at, run_id = excluded.run_id, checksum = excluded.checksum

-- name: delete_cached
DELETE FROM cached WHERE run_id = (SELECT run_id FROM run WHERE number = :number)

-- name: delete_expired
DELETE FROM cached WHERE key IN (SELECT key FROM cached WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit)
RETURNING 1

-- name: delete_old_tickets
DELETE FROM ticket WHERE ends_at <= :now

-- name: read_tickets
SELECT taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket WHERE limited = :limited ORDER BY taken_at

-- name: all_tickets
SELECT limited, taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket

-- name: read_hold
SELECT held_until, checksum FROM held WHERE limited = :limited

-- name: all_holds
SELECT limited, held_until, checksum FROM held

-- name: read_shared
SELECT state, checksum FROM shared WHERE name = :shared

-- name: put_shared
INSERT INTO shared (name, state, checksum) VALUES (:shared, :state, :checksum)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, checksum = excluded.checksum

-- name: all_shared
SELECT name, state, checksum FROM shared

-- name: all_present
SELECT run, at, facts, checksum FROM present

-- name: ask_for
INSERT INTO control (run, id, verb, arguments, author, reason, asked_at, checksum, answer_checksum)
VALUES (:number, :id, :verb, :arguments, :author, :reason, :asked_at, :checksum, :answer_checksum)

-- part: requests
SELECT id, verb, arguments, author, reason, asked_at, applied_at, answer, checksum, answer_checksum FROM control

-- name: requests
{requests}
WHERE run = :number AND (:is_open IS NULL OR (applied_at IS NULL) = :is_open) ORDER BY number

-- name: answer_request
UPDATE control SET applied_at = :applied_at, answer = :answer, answer_checksum = :answer_checksum
WHERE run = :number AND id = :id AND applied_at IS NULL

-- name: all_requests
{requests}

-- name: all_pieces
SELECT key, attempt, position, text, at, checksum FROM streaming

-- name: all_watchers
SELECT key, until, checksum FROM watching

-- name: has_checksums
SELECT 1 FROM pragma_table_info('held') WHERE name = 'checksum'

-- name: is_moving
SELECT 1 FROM pragma_table_info('event_3') LIMIT 1

-- name: expect_once
-- What the owner of a run decides is held by the database as well, where that is wanted: see `rh_agents.stores._rows`.
CREATE UNIQUE INDEX IF NOT EXISTS outcome_once ON journal (place >> 40, key) WHERE ok IS NOT NULL

-- name: owners
SELECT run_id, number, owner, process, fence, heartbeat, heartbeat_at, lease FROM run WHERE owner IS NOT NULL

-- name: move
INSERT INTO journal (
  place, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
  attempt, seconds, message, ok, more, call_checksum, checksum,
  base, parent, epoch, tries, parent_attempt, artifact, size, outcome_more, outcome_checksum, value
)
SELECT
  event_3.place, event_3.timestamp, event_3.status, event_3.event_type, event_3.name, event_3.address, event_3.key,
  event_3.group_id, event_3.parallel_index, event_3.group_total, event_3.attempt, event_3.seconds, event_3.message,
  event_3.ok, event_3.more, event_3.call_checksum, event_3.checksum, outcome_3.base, outcome_3.parent, outcome_3.epoch,
  outcome_3.tries, outcome_3.parent_attempt, outcome_3.artifact, outcome_3.size, outcome_3.more, outcome_3.checksum,
  outcome_3.value
FROM event_3 LEFT JOIN outcome_3 ON outcome_3.place = event_3.place
WHERE event_3.place > coalesce((SELECT max(place) FROM journal), 0)
ORDER BY event_3.place LIMIT :limit

-- name: compare_moved
SELECT count(*), max(event.place), sum(
    (
      event.timestamp, event.status, event.event_type, event.name, event.address, event.key, event.group_id,
      event.parallel_index, event.group_total, event.attempt, event.seconds, event.message, event.ok, event.more,
      event.call_checksum, event.checksum
    ) IS (
      journal.timestamp, journal.status, journal.event_type, journal.name, journal.address, journal.key, journal.group_id,
      journal.parallel_index, journal.group_total, journal.attempt, journal.seconds, journal.message, journal.ok,
      journal.more, journal.call_checksum, journal.checksum
    ) AND (
      outcome_3.base, outcome_3.parent, outcome_3.epoch, outcome_3.tries, outcome_3.parent_attempt, outcome_3.artifact,
      outcome_3.size, outcome_3.more, outcome_3.checksum, outcome_3.value
    ) IS (
      journal.base, journal.parent, journal.epoch, journal.tries, journal.parent_attempt, journal.artifact, journal.size,
      journal.outcome_more, journal.outcome_checksum, journal.value
    )
  )
FROM (SELECT * FROM event_3 WHERE place > :after ORDER BY place LIMIT :limit) AS event
LEFT JOIN outcome_3 ON outcome_3.place = event.place
LEFT JOIN journal ON journal.place = event.place

-- name: count_moved
SELECT
  (SELECT count(*) FROM event_3), (SELECT count(*) FROM journal),
  (SELECT count(*) FROM outcome_3), (SELECT count(parent) FROM journal)

-- name: still_to_move
SELECT
  (SELECT count(*) FROM event_3 WHERE place > coalesce((SELECT max(place) FROM journal), 0)),
  (SELECT count(*) FROM event_3)

-- name: drop_moved
DROP TABLE outcome_3;
DROP TABLE event_3

-- name: count_unsealed
SELECT count(*) FROM event WHERE checksum IS NULL

-- name: unsealed_events
SELECT
  place, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
  attempt, seconds, message, ok, more
FROM event WHERE place > :after AND checksum IS NULL ORDER BY place LIMIT :limit

-- name: outcomes_between
SELECT place, ok, base, parent, epoch, tries, parent_attempt, CAST(value AS BLOB), artifact, more
FROM outcome WHERE place BETWEEN :first AND :last

-- name: seal_event
UPDATE event SET call_checksum = ?, checksum = ? WHERE place = ?

-- name: seal_outcome
UPDATE outcome SET checksum = ? WHERE place = ?

-- name: seal_run
UPDATE run
SET owner = :owner, process = :process, fence = :fence,
    name_checksum = :name_checksum, checksum = :checksum, status_checksum = :status_checksum,
    holder_checksum = :holder_checksum
WHERE number = :number

-- name: seal_question
UPDATE question SET name_checksum = :name_checksum, checksum = :checksum, answer_checksum = :answer_checksum
WHERE run = (SELECT number FROM run WHERE run_id = :run_id) AND id = :id

-- name: seal_cached
UPDATE cached SET checksum = ? WHERE key = ?

-- name: numbered_tickets
SELECT number, limited, taken_at, ends_at, amounts FROM ticket

-- name: seal_ticket
UPDATE ticket SET checksum = ?, amounts_checksum = ? WHERE number = ?

-- name: seal_hold
UPDATE held SET checksum = ? WHERE limited = ?
