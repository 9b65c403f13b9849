-- The queries of the PostgreSQL store, by name. A name in %(...)s is a parameter.

-- name: schema_version
SELECT CASE WHEN to_regclass('schema_version') IS NULL THEN NULL ELSE 1 END

-- name: last_migration
SELECT COALESCE(max(version), 0) FROM schema_version

-- name: create_schema_version
CREATE TABLE IF NOT EXISTS schema_version (
    version    integer PRIMARY KEY,
    file       text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- name: journal_size
SELECT coalesce(pg_table_size(coalesce(to_regclass('journal'), to_regclass('event'))), 0)

-- name: schema_exists
SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)

-- name: add_migration
INSERT INTO schema_version (version, file) VALUES (%(version)s, %(file)s)

-- name: lock_migrations
SELECT set_config('lock_timeout', '60s', true), pg_advisory_xact_lock(%(lock)s)

-- name: write
-- One statement, so one transaction and one way to the server and back. Only what belongs to a run that could be moved on
-- is added.
WITH batch AS (
    SELECT * FROM unnest(%(number)s, %(fence)s, %(before)s, %(after)s, %(added)s)
        AS batch (number, fence, before, after, added)
),
moved AS (
    UPDATE run
    SET last_sequence = batch.after,
        outcomes = run.outcomes + batch.added,
        heartbeat = run.heartbeat + 1,
        heartbeat_at = %(now)s,
        updated_at = %(now)s
    FROM batch
    WHERE run.number = batch.number AND run.fence = batch.fence AND run.last_sequence = batch.before
    RETURNING run.number, run.stop_requested
),
added AS (
    INSERT INTO journal (
        run, sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
        attempt, seconds, message, ok, more, call_checksum, checksum,
        base, parent, epoch, tries, parent_attempt, value, artifact, outcome_more, size, outcome_checksum,
        input, input_checksum
    )
    SELECT * FROM unnest(
        %(row_run)s, %(row_sequence)s, %(row_timestamp)s, %(row_status)s, %(row_event_type)s, %(row_name)s,
        %(row_address)s, %(row_key)s, %(row_group_id)s, %(row_parallel_index)s, %(row_group_total)s,
        %(row_attempt)s, %(row_seconds)s, %(row_message)s, %(row_ok)s, %(row_more)s,
        %(row_call_checksum)s, %(row_checksum)s,
        %(row_base)s, %(row_parent)s, %(row_epoch)s, %(row_tries)s, %(row_parent_attempt)s, %(row_value)s,
        %(row_artifact)s, %(row_outcome_more)s, %(row_size)s, %(row_outcome_checksum)s,
        %(row_input)s, %(row_input_checksum)s
    ) AS fact (run)
    WHERE fact.run IN (SELECT number FROM moved)
)
SELECT number, stop_requested, pg_notify(%(changes)s, '') FROM moved

-- part: lease
run.number, run.stop_requested, (
    SELECT coalesce(json_agg(json_build_array(encode(key, 'hex'), until) ORDER BY key)::text, '[]')
    FROM watching WHERE watching.run = run.number
), (SELECT count(*) FROM control WHERE control.run = run.number)

-- name: renew
UPDATE run
SET heartbeat = run.heartbeat + 1, heartbeat_at = %(now)s
FROM unnest(%(number)s, %(fence)s) AS held (number, fence)
WHERE run.number = held.number AND run.fence = held.fence
RETURNING {lease}

-- name: say
INSERT INTO present (run, at, facts, checksum)
SELECT run.number, said.at, said.facts, said.checksum
FROM unnest(%(number)s, %(fence)s, %(at)s, %(facts)s, %(checksum)s) AS said (number, fence, at, facts, checksum)
JOIN run ON run.number = said.number AND run.fence = said.fence
ON CONFLICT (run) DO UPDATE SET at = excluded.at, facts = excluded.facts, checksum = excluded.checksum
RETURNING run

-- name: read_present
SELECT at, facts, checksum FROM present WHERE run = %(number)s

-- name: look
SELECT {lease}
FROM run JOIN unnest(%(number)s, %(fence)s) AS held (number, fence) USING (number, fence)

-- name: standings
SELECT number, fence, last_sequence, status, owner, stop_requested FROM run WHERE number = ANY(%(numbers)s)

-- name: create
INSERT INTO run (
    run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner, process,
    fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    queue, flow, priority, ready_at, claims, parent,
    name_checksum, checksum, status_checksum, holder_checksum, queue_checksum
)
VALUES (
    %(run_id)s, %(status)s, %(epoch)s, %(workflow)s, %(input)s, %(input_digest)s, %(tags)s, %(facts)s, %(created_at)s,
    %(updated_at)s, %(ended_at)s, %(owner)s, %(process)s, %(fence)s, %(heartbeat)s, %(heartbeat_at)s, %(lease)s,
    %(last_sequence)s, %(outcomes)s, %(reason)s, %(stop_requested)s, %(forked_from)s,
    %(queue)s, %(flow)s, %(priority)s, %(ready_at)s, %(claims)s, %(parent)s,
    %(name_checksum)s, %(checksum)s, %(status_checksum)s, %(holder_checksum)s, %(queue_checksum)s
)
ON CONFLICT (run_id) DO NOTHING
RETURNING number, pg_notify(%(changes)s, ''), CASE WHEN ready_at IS NOT NULL THEN pg_notify(%(ready)s, '') END

-- name: replace
WITH replaced AS (
    UPDATE run
    SET status = %(status)s,
        epoch = %(epoch)s,
        workflow = %(workflow)s,
        input = %(input)s,
        input_digest = %(input_digest)s,
        tags = %(tags)s,
        facts = %(facts)s,
        updated_at = %(updated_at)s,
        ended_at = %(ended_at)s,
        owner = %(owner)s,
        process = %(process)s,
        fence = %(fence)s,
        heartbeat = %(heartbeat)s,
        heartbeat_at = %(heartbeat_at)s,
        lease = %(lease)s,
        reason = %(reason)s,
        stop_requested = %(stop_requested)s,
        forked_from = %(forked_from)s,
        queue = %(queue)s,
        flow = %(flow)s,
        priority = %(priority)s,
        ready_at = %(ready_at)s,
        claims = %(claims)s,
        parent = %(parent)s,
        name_checksum = %(name_checksum)s,
        checksum = %(checksum)s,
        status_checksum = %(status_checksum)s,
        holder_checksum = %(holder_checksum)s,
        queue_checksum = %(queue_checksum)s
    WHERE number = %(number)s AND fence = %(expected_fence)s AND heartbeat = %(expected_heartbeat)s
    RETURNING number, owner, ready_at
),
gone_text AS (
    DELETE FROM streaming WHERE run IN (SELECT number FROM replaced)
)
SELECT pg_notify(%(changes)s, ''), pg_notify(%(requests)s, ''),
    CASE WHEN owner IS NULL AND ready_at IS NOT NULL THEN pg_notify(%(ready)s, '') END
FROM replaced

-- name: release
WITH released AS (
    UPDATE run
    SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL, holder_checksum = %(holder_checksum)s
    WHERE number = %(number)s AND fence = %(fence)s
    RETURNING number
),
gone_text AS (
    DELETE FROM streaming WHERE run IN (SELECT number FROM released)
),
gone_watchers AS (
    DELETE FROM watching WHERE run IN (SELECT number FROM released)
)
SELECT pg_notify(%(changes)s, '') FROM released

-- name: release_with_status
WITH released AS (
    UPDATE run
    SET owner = NULL,
        process = NULL,
        fence = fence + 1,
        stop_requested = NULL,
        status = %(status)s,
        reason = %(reason)s,
        updated_at = %(now)s,
        ended_at = %(ended_at)s,
        status_checksum = %(status_checksum)s,
        holder_checksum = %(holder_checksum)s,
        ready_at = CASE WHEN stop_requested IS NULL THEN %(ready_at)s::double precision END,
        claims = %(claims)s,
        queue_checksum = CASE
            WHEN stop_requested IS NULL THEN %(queue_checksum)s::integer ELSE %(stopped_checksum)s::integer
        END
    WHERE number = %(number)s AND fence = %(fence)s
    RETURNING number, ready_at
),
gone_text AS (
    DELETE FROM streaming WHERE run IN (SELECT number FROM released)
),
gone_watchers AS (
    DELETE FROM watching WHERE run IN (SELECT number FROM released)
)
SELECT pg_notify(%(changes)s, ''), CASE WHEN ready_at IS NOT NULL THEN pg_notify(%(ready)s, '') END FROM released

-- name: delete
WITH gone AS (
    DELETE FROM run WHERE number = %(number)s AND fence = %(fence)s RETURNING number, run_id
),
gone_journal AS (
    DELETE FROM journal WHERE run IN (SELECT number FROM gone) AND sequence <= %(most)s
),
gone_cached AS (
    DELETE FROM cached WHERE run_id IN (SELECT run_id FROM gone)
)
SELECT pg_notify(%(changes)s, '') FROM gone

-- name: shorten
-- A part of a journal from its end, of a run that is being deleted: see `rh_agents.stores._deleting`. Without the upper
-- bound each part would go over what the index still has of those before it, until a vacuum removes that.
WITH held AS (
    SELECT number FROM run WHERE number = %(number)s AND fence = %(fence)s FOR UPDATE
),
gone AS (
    DELETE FROM journal
    WHERE run IN (SELECT number FROM held) AND sequence > %(last)s AND sequence <= %(most)s
    RETURNING ok
)
UPDATE run SET last_sequence = %(last)s, outcomes = outcomes - (SELECT count(ok) FROM gone)
WHERE number IN (SELECT number FROM held)
RETURNING number

-- name: strip
WITH stripped AS (
    UPDATE run
    SET facts = %(facts)s, reason = %(reason)s, input = NULL, name_checksum = %(name_checksum)s,
        checksum = %(checksum)s, status_checksum = %(status_checksum)s
    WHERE number = %(number)s AND fence = %(fence)s
    RETURNING number, run_id
),
gone_questions AS (DELETE FROM question WHERE run IN (SELECT number FROM stripped)),
gone_present AS (DELETE FROM present WHERE run IN (SELECT number FROM stripped)),
gone_control AS (DELETE FROM control WHERE run IN (SELECT number FROM stripped)),
gone_streaming AS (DELETE FROM streaming WHERE run IN (SELECT number FROM stripped)),
gone_watching AS (DELETE FROM watching WHERE run IN (SELECT number FROM stripped)),
gone_cached AS (DELETE FROM cached WHERE run_id IN (SELECT run_id FROM stripped))
SELECT pg_notify(%(changes)s, '') FROM stripped

-- name: rewrite
-- The one change of what a journal says: see `rh_agents.stores._erasing`.
WITH held AS (
    SELECT number FROM run WHERE number = %(number)s AND fence = %(fence)s FOR SHARE
),
changed AS (
    UPDATE journal
    SET message = fact.message, more = fact.more, call_checksum = fact.call_checksum, checksum = fact.checksum,
        value = fact.value, outcome_checksum = fact.outcome_checksum, artifact = NULL, size = NULL, input = NULL,
        input_checksum = NULL
    FROM unnest(
        %(row_sequence)s, %(row_message)s, %(row_more)s, %(row_call_checksum)s, %(row_checksum)s, %(row_value)s,
        %(row_outcome_checksum)s
    ) AS fact (sequence, message, more, call_checksum, checksum, value, outcome_checksum)
    WHERE journal.run IN (SELECT number FROM held) AND journal.sequence = fact.sequence
)
SELECT pg_notify(%(changes)s, '') FROM held

-- name: delete_cached
DELETE FROM cached WHERE key = ANY (%(keys)s)

-- name: is_erased
-- Locked until the transaction ends, so that erasing does not begin before it.
SELECT 1 FROM run WHERE run_id = %(run_id)s AND position('"rh_agents.erased_at"' IN facts) > 0 FOR SHARE

-- name: lock_source
SELECT number FROM run WHERE run_id = %(run_id)s FOR SHARE

-- name: ask
-- The lock keeps the run from being taken over until the question is there.
INSERT INTO question (
    run, id, address, text, schema, asked_at, answer, answered_at, answered_by, problem,
    name_checksum, checksum, answer_checksum
)
SELECT number, %(id)s, %(address)s, %(text)s, %(schema)s, %(asked_at)s, %(answer)s, %(answered_at)s, %(answered_by)s,
    %(problem)s, %(name_checksum)s, %(checksum)s, %(answer_checksum)s
FROM run
WHERE number = %(number)s AND fence = %(fence)s
FOR SHARE
ON CONFLICT (run, id) DO NOTHING
RETURNING pg_notify(%(changes)s, '')

-- name: is_held
SELECT 1 FROM run WHERE number = %(number)s AND fence = %(fence)s

-- name: lock_held
SELECT 1 FROM run WHERE number = %(number)s AND fence = %(fence)s FOR SHARE

-- name: children
SELECT
    number, run_id, status, reason, claims, owner, process, fence, heartbeat, heartbeat_at, lease, last_sequence, ready_at
FROM run WHERE parent = %(number)s ORDER BY number

-- name: children_to_stop
-- Locked before their places in queues are read: what a worker that takes one has written is seen, and not written over.
SELECT number, queue, flow, priority, ready_at, claims, parent FROM run
WHERE parent = %(number)s AND (%(tag)s::text[] IS NULL OR tags @> %(tag)s)
ORDER BY number
FOR UPDATE

-- name: stop_child
UPDATE run SET stop_requested = %(reason)s, ready_at = NULL, queue_checksum = %(queue_checksum)s WHERE number = %(number)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: find_mark
-- The last event of a range that has a text among its rarer facts.
SELECT sequence FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND strpos(more, %(text)s) > 0
ORDER BY sequence DESC LIMIT 1

-- name: reject_answer
WITH held AS (
    SELECT number FROM run WHERE number = %(number)s AND fence = %(fence)s FOR SHARE
),
opened AS (
    UPDATE question
    SET answer = NULL, answered_at = NULL, answered_by = NULL, problem = %(problem)s,
        answer_checksum = %(answer_checksum)s
    WHERE run IN (SELECT number FROM held) AND id = %(id)s
)
SELECT pg_notify(%(changes)s, '') FROM held

-- name: answer
UPDATE question
SET answer = %(answer)s, answered_at = %(now)s, answered_by = %(by)s, problem = NULL,
    answer_checksum = %(answer_checksum)s
WHERE run = %(number)s AND id = %(id)s AND answer IS NULL
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: request_stop
UPDATE run SET stop_requested = %(reason)s WHERE number = %(number)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: watch
WITH forgotten AS (
    DELETE FROM watching WHERE run = %(number)s AND key <> %(key)s AND until < %(before)s
)
INSERT INTO watching (run, key, until, checksum) VALUES (%(number)s, %(key)s, %(until)s, %(checksum)s)
ON CONFLICT (run, key) DO UPDATE SET until = excluded.until, checksum = excluded.checksum
RETURNING pg_notify(%(requests)s, '')

-- name: watched_until
SELECT until FROM watching WHERE run = %(number)s AND key = %(key)s

-- name: put_pieces
-- The lock keeps the run from being taken over until the text is there.
WITH held AS (
    SELECT number FROM run WHERE number = %(number)s AND fence = %(fence)s FOR SHARE
),
cut AS (
    DELETE FROM streaming
    USING unnest(%(cut_key)s, %(cut_attempt)s, %(cut_position)s) AS cut (key, attempt, position)
    WHERE streaming.run IN (SELECT number FROM held) AND streaming.key = cut.key
        AND (streaming.attempt, streaming.position) < (cut.attempt, cut.position)
)
INSERT INTO streaming (run, key, attempt, position, text, at, checksum)
SELECT held.number, piece.*
FROM held, unnest(%(key)s, %(attempt)s, %(position)s, %(text)s, %(at)s, %(checksum)s) AS piece
ON CONFLICT (run, key, attempt, position) DO UPDATE
SET text = excluded.text, at = excluded.at, checksum = excluded.checksum

-- name: delete_pieces_of
DELETE FROM streaming
USING unnest(%(number)s, %(key)s) AS gone (run, key)
WHERE streaming.run = gone.run AND streaming.key = gone.key

-- name: pieces
SELECT key, attempt, position, text, at, checksum FROM streaming
WHERE run = %(number)s AND at > %(after)s ORDER BY at, key, attempt, position

-- name: pieces_of_call
SELECT key, attempt, position, text, at, checksum FROM streaming
WHERE run = %(number)s AND key = %(key)s AND at > %(after)s ORDER BY at, attempt, position

-- part: run_columns
number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
queue, flow, priority, ready_at, claims, parent,
name_checksum, checksum, status_checksum, holder_checksum, queue_checksum

-- name: find_run
SELECT {run_columns}
FROM run
WHERE run_id = %(run_id)s OR name_checksum = %(named)s

-- part: are_listed
WHERE (%(parts)s OR parent IS NULL)
    AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(kinds)s::text[] IS NULL OR (owner IS NOT NULL AND 'running' = ANY(%(kinds)s)) OR CASE
        WHEN status IN ('completed', 'failed', 'cancelled') THEN status
        WHEN status = 'awaiting' THEN 'waiting'
        WHEN status = 'pending' AND queue IS NOT NULL THEN 'pending'
        ELSE 'interrupted'
    END = ANY(%(kinds)s))
    AND (%(text)s::text IS NULL
        OR strpos(lower(run_id COLLATE "C"), %(text)s) > 0
        OR strpos(lower(workflow COLLATE "C"), %(text)s) > 0)
    AND (%(updated_since)s::double precision IS NULL OR updated_at >= %(updated_since)s)
    AND (%(updated_before)s::double precision IS NULL OR updated_at < %(updated_before)s)
    AND (%(forks_of)s::text[] IS NULL OR forked_from = ANY(%(forks_of)s))
    AND (%(owned)s::boolean IS NULL OR (owner IS NOT NULL) = %(owned)s)
    AND (%(behind)s::bigint IS NULL
        OR (created_at, number) < (SELECT last.created_at, last.number FROM run AS last WHERE last.number = %(behind)s))

-- part: newest_first
ORDER BY created_at DESC, number DESC
LIMIT %(limit)s

-- name: runs
SELECT {run_columns}
FROM run
{are_listed}
{newest_first}

-- name: runs_with_tag
-- Found by the tag first, and then sorted: MATERIALIZED keeps the planner from reading all runs in the order of their age.
WITH tagged AS MATERIALIZED (
    SELECT * FROM run WHERE tags @> %(tag)s
)
SELECT {run_columns}
FROM tagged
{are_listed}
{newest_first}

-- name: count_runs
SELECT count(*) FROM run
{are_listed}
    AND (%(tag)s::text[] IS NULL OR tags @> %(tag)s)

-- name: tags_of_runs
SELECT DISTINCT unnest(tags) FROM run WHERE parent IS NULL

-- name: look_at_queue
-- The leases of the runs that somebody executes; then, without one, what the runs need that a worker may take now, of many
-- such runs the first ones. Neither has what the worker cannot do.
SELECT number, fence, heartbeat, lease, process, run_id, flow FROM run
WHERE queue = %(queue)s AND ready_at <= %(now)s AND owner IS NOT NULL AND flow <> ALL(%(without)s)
UNION ALL
SELECT DISTINCT NULL::bigint, NULL::bigint, NULL::bigint, NULL::double precision, NULL::text, NULL::text, flow FROM (
    SELECT flow FROM run
    WHERE queue = %(queue)s AND ready_at <= %(now)s AND owner IS NULL
        AND status IN ('pending', 'started', 'awaiting') AND flow <> ALL(%(without)s)
    LIMIT 200
) AS waiting

-- name: next_in_queue
-- The next run that nobody else is taking at this moment: SKIP LOCKED keeps workers from waiting for each other. The last
-- three are owners that are gone.
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    queue, flow, priority, ready_at, claims, parent,
    name_checksum, checksum, status_checksum, holder_checksum, queue_checksum
FROM run
WHERE queue = %(queue)s AND ready_at <= %(now)s AND status IN ('pending', 'started', 'awaiting') AND flow = ANY(%(flows)s)
    AND (
        owner IS NULL
        OR (number, fence, heartbeat) IN (SELECT * FROM unnest(%(number)s, %(fence)s, %(heartbeat)s))
    )
ORDER BY priority DESC, ready_at, number
LIMIT 1 OFFSET %(offset)s
FOR UPDATE SKIP LOCKED

-- name: sleeping
-- A run that waits, and that no one executes; what is written of it then must fit its checksum.
SELECT queue, flow, priority, ready_at, claims, parent FROM run
WHERE number = %(number)s AND queue IS NOT NULL AND owner IS NULL AND status = 'awaiting'
FOR UPDATE

-- name: wake
UPDATE run SET ready_at = %(ready_at)s, queue_checksum = %(queue_checksum)s WHERE number = %(number)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(ready)s, '')

-- name: lock_run
SELECT 1 FROM run WHERE number = %(number)s FOR UPDATE

-- name: is_answered
SELECT 1 FROM question WHERE run = %(number)s AND id = ANY(%(ids)s) AND answer IS NOT NULL LIMIT 1

-- name: calls
SELECT sequence, status, key, attempt, group_id, ok,
    CASE WHEN more IS NOT NULL THEN name END, more,
    CASE WHEN NOT ok THEN epoch END, CASE WHEN NOT ok THEN tries END, CASE WHEN NOT ok THEN parent_attempt END,
    call_checksum
FROM journal
WHERE run = %(number)s AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s

-- part: events
SELECT sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total, attempt, seconds,
    message, ok, more, checksum
FROM journal

-- name: events
{events}
WHERE run = %(number)s AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s

-- name: size_of_journal
SELECT (
    coalesce(sum(octet_length(value)), 0) + coalesce(sum(octet_length(more)), 0)
    + coalesce(sum(octet_length(outcome_more)), 0) + coalesce(sum(octet_length(message)), 0)
    + coalesce(sum(octet_length(key)), 0) + coalesce(sum(octet_length(parent)), 0)
    + coalesce(sum(octet_length(name) + octet_length(address)), 0)
)::bigint
FROM journal WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s

-- name: own_artifacts
-- The artifacts that a part of a run uses and no other run does, with their sizes.
SELECT encode(artifact, 'hex'), coalesce(max(size), 0)::bigint
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND artifact IS NOT NULL AND NOT EXISTS (
    SELECT FROM journal AS other WHERE other.artifact = journal.artifact AND other.run <> %(number)s
)
GROUP BY artifact

-- part: outcomes
SELECT sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, outcome_more, size, name, address,
    seconds, attempt, group_id, outcome_checksum
FROM journal

-- name: outcomes
{outcomes}
WHERE run = %(number)s AND sequence > %(after)s AND ok IS NOT NULL
ORDER BY sequence
LIMIT %(limit)s

-- name: inputs
-- What calls were called with, where that is recorded.
SELECT sequence, input, input_checksum
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND num_nonnulls(input, input_checksum) > 0
ORDER BY sequence

-- name: inputs_at
SELECT sequence, input, input_checksum
FROM journal
WHERE run = %(number)s AND sequence = ANY(%(sequences)s) AND num_nonnulls(input, input_checksum) > 0
ORDER BY sequence

-- part: more_as_text
-- `more` has its backslashes twice, which JSON would take for something else; and what stands behind \u may be no character
-- that PostgreSQL knows. So backslashes, and those before a u, are two characters meanwhile that ASCII does not have.
replace(replace(replace(more, '\\\\', U&'\E000'), '\\u', U&'\E001'), '\\', '\') AS text

-- part: text_as_json
-- Metadata may have numbers that JSON cannot represent: outside of texts, which is what has an even number of quotes behind
-- it, they are null.
(CASE
    WHEN text ~ 'NaN|Infinity'
    THEN regexp_replace(text, '-?(NaN|Infinity)(?=([^"\\]|\\.|"([^"\\]|\\.)*")*$)', 'null', 'g')
    ELSE text
END)::json

-- part: waited
-- For how many seconds a call waited: it stands at the beginning of `more` if it did.
coalesce(substring(more FROM '^\{"waited": ([0-9.e+-]+)')::float8, 0)

-- part: cost
CASE WHEN strpos(more, '"usage":') > 0 THEN (
    SELECT coalesce(({text_as_json} -> 'usage' ->> 'cost')::float8, 0) FROM (SELECT {more_as_text}) AS read
) ELSE 0 END

-- part: is_wanted
-- Which calls are wanted. There may be too many: calls of other actors in whose rows this one is named. Letters of ASCII are
-- equal in either case.
(%(status)s::text IS NULL OR status = %(status)s) AND (%(group_id)s::text IS NULL OR group_id = %(group_id)s)
AND (%(actor)s::text IS NULL OR name = %(actor)s OR strpos(more, %(actor_in_more)s) > 0)
AND (%(text)s::text IS NULL
    OR strpos(lower(address COLLATE "C"), %(text)s) > 0
    OR strpos(lower(message COLLATE "C"), %(text)s) > 0)
AND (%(min_time)s::float8 IS NULL OR timestamp >= %(min_time)s::float8)
AND (%(max_time)s::float8 IS NULL OR timestamp - coalesce(seconds, 0) <= %(max_time)s::float8)
AND (%(min_seconds)s::float8 IS NULL OR coalesce(seconds, 0) >= %(min_seconds)s::float8)
AND (%(max_seconds)s::float8 IS NULL OR coalesce(seconds, 0) <= %(max_seconds)s::float8)
AND (%(min_attempts)s::float8 IS NULL OR attempt >= %(min_attempts)s::float8)
AND (%(max_attempts)s::float8 IS NULL OR attempt <= %(max_attempts)s::float8)
AND (%(min_cost)s::float8 IS NULL OR {cost} >= %(min_cost)s::float8)
AND (%(max_cost)s::float8 IS NULL OR {cost} <= %(max_cost)s::float8)
AND (%(min_waited)s::float8 IS NULL OR {waited} >= %(min_waited)s::float8)
AND (%(max_waited)s::float8 IS NULL OR {waited} <= %(max_waited)s::float8)

-- name: moments
-- When the first call that ended in a part of the journal began, and when the last one ended.
SELECT min(timestamp - coalesce(seconds, 0)), max(timestamp)
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL

-- name: find_calls
-- Calls that have ended, in the order in which they did. What has an outcome that counts for nothing is among them.
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL
    AND {is_wanted}
ORDER BY sequence
LIMIT %(limit)s

-- name: find_calls_back
-- The same, the newest first.
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL
    AND {is_wanted}
ORDER BY sequence DESC
LIMIT %(limit)s

-- name: find_failures
-- The same, of those that are no success: these have an index of their own.
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND NOT ok
    AND {is_wanted}
ORDER BY sequence
LIMIT %(limit)s

-- name: find_failures_back
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND NOT ok
    AND {is_wanted}
ORDER BY sequence DESC
LIMIT %(limit)s

-- part: calls_by_value
-- What calls of a part of the journal are sorted by, of this kind, and where they stand.
SELECT value, sequence
FROM (
    SELECT sequence, {value} AS value
    FROM journal LEFT JOIN LATERAL (
        SELECT {text_as_json} -> 'usage' AS used
        FROM (
            SELECT {more_as_text}
        ) AS read
        WHERE strpos(more, '"usage":') > 0
    ) AS said ON true CROSS JOIN LATERAL (SELECT {waited} AS waited) AS its
    WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL
        AND {is_wanted}
) AS call

-- name: sort_calls
-- The least of a part of the journal first.
{calls_by_value}
WHERE %(value)s::{kind} IS NULL OR value > %(value)s OR (value = %(value)s AND sequence > %(behind)s)
ORDER BY value, sequence
LIMIT %(limit)s

-- name: sort_calls_back
-- The greatest of a part of the journal first; what is equal stays in the order of the journal.
{calls_by_value}
WHERE %(value)s::{kind} IS NULL OR value < %(value)s OR (value = %(value)s AND sequence > %(behind)s)
ORDER BY value DESC, sequence
LIMIT %(limit)s

-- name: failed_rows
-- What went wrong, and in which call, without values.
SELECT sequence, address, name, more, event_type, message, key, base
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND NOT ok AND status = 'failed'
ORDER BY sequence
LIMIT %(limit)s

-- name: tried_again
-- Outcomes of calls that were made again: of the same place in the program there are others.
SELECT sequence, key, base, group_id
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND base IS NOT NULL AND ok IS NOT NULL
ORDER BY sequence
LIMIT %(limit)s

-- name: outcomes_of_keys
SELECT sequence, key, group_id
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL AND key = ANY(%(keys)s)
ORDER BY sequence

-- name: failures_of_keys
SELECT sequence, key, group_id
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND NOT ok AND key = ANY(%(keys)s)
ORDER BY sequence

-- name: events_of_key
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND key = %(key)s
ORDER BY sequence
LIMIT %(limit)s

-- name: find_children
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND parent = %(parent)s AND ok IS NOT NULL
ORDER BY sequence
LIMIT %(limit)s

-- name: find_named
-- Outcomes of calls that somebody may mean: by a name or an address, by what an address ends with, by the beginning of a key.
SELECT sequence
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL
    AND (
        name = ANY(%(names)s) OR address = ANY(%(names)s)
        OR EXISTS (SELECT FROM unnest(%(parts)s) AS part WHERE strpos(address, part) > 0)
        OR EXISTS (SELECT FROM unnest(%(keys)s) AS part WHERE left(encode(key, 'hex'), length(part)) = part)
    )
ORDER BY sequence

-- name: ended_keys
SELECT coalesce(string_agg(key, ''::bytea), ''::bytea)
FROM (
    SELECT key
    FROM journal
    WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL
    ORDER BY sequence
) AS outcome

-- name: kinds
-- The keys of outcomes; and of other events of calls, s for a start or one more attempt and e for another one, with the key
-- and the sequence.
SELECT count(*),
    coalesce(string_agg(key, ''::bytea) FILTER (WHERE ok IS NOT NULL), ''::bytea),
    coalesce(string_agg(CASE WHEN status IN ('started', 'retrying') THEN 's' ELSE 'e' END, '')
        FILTER (WHERE ok IS NULL AND key IS NOT NULL), ''),
    coalesce(string_agg(key, ''::bytea) FILTER (WHERE ok IS NULL), ''::bytea),
    coalesce(array_agg(sequence) FILTER (WHERE ok IS NULL AND key IS NOT NULL), '{}')
FROM (
    SELECT sequence, key, ok, status
    FROM journal
    WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s
    ORDER BY sequence
) AS event

-- name: count_groups
SELECT group_id, count(*)
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL AND group_id IS NOT NULL
GROUP BY 1

-- name: tallies
-- The events of a run, counted: values are not read. Nearly all events of a map have the same text in `more`, so that is
-- looked into once for all of them. `later` are outcomes that count for nothing (their calls had one before).
WITH alike AS (
    SELECT event_type, group_id, status, ok IS NOT NULL AS has_outcome, sequence = ANY(%(later)s) AS is_repeated,
        CASE
            WHEN left(more, 9) = '{"actor":' AND strpos(more, '"kind"') = 0 AND event_type <> 'function_call' THEN NULL
            ELSE name
        END AS name,
        more, count(*) AS events, min(timestamp) AS first_at, max(timestamp) AS last_at,
        min(sequence) AS first
    FROM journal
    WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s
    GROUP BY 1, 2, 3, 4, 5, 6, 7
),
said AS (
    SELECT *, replace(replace(replace((fact -> 'actor')::text, '\', '\\'), U&'\E001', '\\u'), U&'\E000', '\\\\') AS actor,
        coalesce(fact ->> 'kind', event_type) AS kind, fact -> 'usage' AS used,
        coalesce((fact ->> 'from_cache')::boolean, status = 'recovered') AS is_free
    FROM (
        SELECT *, {text_as_json} AS fact
        FROM (
            SELECT *, {more_as_text} FROM alike
        ) AS read
    ) AS parsed
)
SELECT event_type, group_id, status, has_outcome, is_repeated,
    CASE WHEN actor IS NULL OR kind = 'function_call' THEN name END, actor, kind, is_free,
    sum(events)::bigint, min(first_at), max(last_at), count(used),
    sum(events * (used ->> 'input_tokens')::numeric)::bigint,
    sum(events * (used ->> 'output_tokens')::numeric)::bigint,
    sum(events * (used ->> 'cached_tokens')::numeric)::bigint,
    sum(events * (used ->> 'reasoning_tokens')::numeric)::bigint,
    sum(events * (used ->> 'requests')::numeric)::bigint,
    sum(events * (used ->> 'cost')::double precision),
    sum(events * (used ->> 'cache_write_tokens')::numeric)::bigint,
    sum(events * (used ->> 'estimates')::numeric)::bigint,
    sum(events * (used ->> 'long_cache_write_tokens')::numeric)::bigint
FROM said
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9
ORDER BY min(first) FILTER (WHERE used IS NOT NULL)

-- name: members
-- What tells which calls have nothing to say but that they began and have succeeded (see `rh_agents.stores._outlining`): c
-- stands for such an outcome of a member or of a call that another one made, s for a start or one more attempt, x for
-- anything else about a call, b and e for the begin and the end of a group. The last column says what the members of an
-- actor have in common.
SELECT sequence,
    CASE
        WHEN key IS NULL THEN CASE
            WHEN event_type = 'group_started' AND status = 'started' AND group_id IS NOT NULL THEN 'b'
            WHEN event_type = 'group_completed' AND status = 'completed' AND group_id IS NOT NULL THEN 'e'
            ELSE '-'
        END
        WHEN (group_id IS NULL) <> (parallel_index IS NULL) THEN 'x'
        WHEN ok AND status = 'completed' AND base IS NULL AND (group_id IS NOT NULL OR length(parent) = 32) THEN 'c'
        WHEN ok IS NULL AND status IN ('started', 'retrying') THEN 's'
        ELSE 'x'
    END,
    coalesce(key, decode(repeat('00', 32), 'hex')), group_id, parallel_index,
    CASE WHEN ok THEN
        encode(parent, 'hex') || chr(31) || CASE WHEN left(more, 9) = '{"actor":' THEN '' ELSE name END || chr(31)
        || CASE
            WHEN more IS NULL OR (strpos(more, '"actor":') = 0 AND strpos(more, '"version":') = 0) THEN '{}'
            WHEN strpos(more, ',') = 0 THEN more
            ELSE replace(replace(replace(json_build_object('actor', fact -> 'actor', 'version', fact -> 'version')::text,
                '\', '\\'), U&'\E001', '\\u'), U&'\E000', '\\\\')
        END
    END,
    strpos(more, '"usage":') > 0
FROM journal LEFT JOIN LATERAL (
    SELECT {text_as_json} AS fact
    FROM (
        SELECT {more_as_text}
    ) AS read
    WHERE ok AND strpos(more, ',') > 0
) AS said ON true
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s
ORDER BY sequence
LIMIT %(limit)s

-- name: addresses_at
SELECT event_type, group_id, key, address
FROM journal
WHERE run = %(number)s AND sequence = ANY(%(sequences)s)

-- name: keys_at
SELECT DISTINCT key
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND key IS NOT NULL
    AND address = ANY(%(addresses)s)

-- name: events_at
{events}
WHERE run = %(number)s AND sequence = ANY(%(sequences)s)
ORDER BY sequence

-- name: outcomes_at
{outcomes}
WHERE run = %(number)s AND sequence = ANY(%(sequences)s) AND ok IS NOT NULL
ORDER BY sequence

-- name: activity_buckets
-- What happened in pieces of time of `width` seconds, by what stands in addresses up to the last "[", which is the innermost
-- group. What a call has waited stands at the beginning of `more`, if it has.
SELECT coalesce(substring(address FROM '^.*\['), ''), floor(timestamp / %(width)s), min(sequence),
    count(*) FILTER (WHERE ok IS NOT NULL AND status IN ('completed', 'recovered')),
    count(*) FILTER (WHERE ok IS NOT NULL AND status = 'failed'), count(*) FILTER (WHERE status = 'retrying'),
    count(*) FILTER (WHERE status = 'awaiting' OR (ok IS NOT NULL AND left(more, 11) = '{"waited": '))
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND key IS NOT NULL
    AND (ok IS NOT NULL OR status IN ('retrying', 'awaiting'))
GROUP BY 1, 2

-- name: activity_durations
-- How long calls took, in buckets as `rh_agents/core/_base/latency.py` has them. Nearly all events of a map have the same
-- text in `more`, so that it is grouped by, and looked into afterwards. The name is of no interest where that says whose
-- call it is.
SELECT
    CASE
        WHEN left(more, 9) = '{"actor":' AND strpos(more, '"kind"') = 0 AND event_type <> 'function_call' THEN ''
        ELSE name
    END,
    event_type, more, CASE WHEN left(more, 11) = '{"waited": ' THEN seconds END,
    CASE
        WHEN seconds <= %(smallest)s THEN 0 ELSE trunc(ln(seconds) / ln(2::float8) * %(per_doubling)s + %(offset)s)::bigint
    END,
    count(*), sum(seconds), max(seconds)
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL AND seconds IS NOT NULL
    AND key IS NOT NULL
GROUP BY 1, 2, 3, 4, 5

-- name: activity_slowest
SELECT sequence, key, address, name, event_type, more, seconds
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND ok IS NOT NULL AND seconds IS NOT NULL
    AND key IS NOT NULL
ORDER BY seconds - {waited} DESC, sequence
LIMIT %(limit)s

-- name: activity_groups
SELECT timestamp, more
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s
    AND event_type IN ('group_started', 'group_ending', 'group_completed') AND more IS NOT NULL
ORDER BY sequence

-- name: activity_totals
SELECT group_id, max(group_total)
FROM journal
WHERE run = %(number)s AND sequence > %(after)s AND sequence <= %(until)s AND group_total IS NOT NULL AND key IS NOT NULL
    AND group_id IS NOT NULL
GROUP BY 1

-- part: questions
SELECT run.run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem, question.name_checksum,
    question.checksum, question.answer_checksum
FROM question JOIN run ON run.number = question.run

-- name: question
{questions}
WHERE (question.run = %(number)s AND question.id = %(id)s) OR question.name_checksum = %(named)s

-- name: questions
{questions}
WHERE (%(run_id)s::text IS NULL OR run.run_id = %(run_id)s) AND (NOT %(is_open)s OR question.answer IS NULL)
ORDER BY question.asked_at, question.run, question.id

-- name: used_artifacts
SELECT DISTINCT artifact FROM journal WHERE artifact = ANY(%(digests)s)

-- name: finding_gaps
SELECT run.run_id, run.last_sequence, count(journal.sequence), max(journal.sequence)
FROM run LEFT JOIN journal ON journal.run = run.number
GROUP BY run.number, run.run_id, run.last_sequence
HAVING count(journal.sequence) <> run.last_sequence
    OR COALESCE(min(journal.sequence), 1) <> 1
    OR COALESCE(max(journal.sequence), 0) <> run.last_sequence
ORDER BY run.number

-- name: finding_counts
SELECT run.run_id, run.outcomes, count(journal.ok)
FROM run LEFT JOIN journal ON journal.run = run.number
GROUP BY run.number, run.run_id, run.outcomes
HAVING run.outcomes NOT IN (count(journal.ok), count(DISTINCT CASE WHEN journal.ok IS NOT NULL THEN journal.key END))
ORDER BY run.number

-- name: finding_outcomes
SELECT run.run_id, journal.sequence, journal.ok IS NOT NULL
FROM journal LEFT JOIN run ON run.number = journal.run
WHERE CASE
    WHEN journal.ok IS NULL THEN num_nonnulls(
        journal.base, journal.parent, journal.epoch, journal.tries, journal.parent_attempt, journal.artifact, journal.size,
        journal.outcome_more, journal.outcome_checksum, journal.value
    ) > 0
    ELSE journal.key IS NULL OR journal.parent IS NULL OR num_nonnulls(journal.value, journal.artifact) <> 1
END
ORDER BY 1, 2

-- name: finding_strays
SELECT journal.run, count(*)
FROM journal
WHERE NOT EXISTS (SELECT FROM run WHERE run.number = journal.run)
GROUP BY journal.run
ORDER BY 1

-- name: finding_orphans
-- Of schemas before version 4, in which an outcome had a row of its own.
SELECT run.run_id, orphan.sequence FROM orphan LEFT JOIN run ON run.number = orphan.run ORDER BY 1, 2

-- name: finding_keys
SELECT run.run_id, encode(outcome.key, 'hex'), outcome.sequence, outcome.first
FROM (
    SELECT run, key, sequence, min(sequence) OVER (PARTITION BY run, key) AS first FROM journal WHERE ok IS NOT NULL
) AS outcome
LEFT JOIN run ON run.number = outcome.run
WHERE outcome.sequence > outcome.first
ORDER BY 1, 3

-- name: put_artifact
INSERT INTO artifact (digest, put_at, data)
VALUES (%(digest)s, extract(epoch FROM clock_timestamp()), %(data)s)
ON CONFLICT (digest) DO UPDATE
SET put_at = excluded.put_at,
    data = CASE WHEN sha256(artifact.data) = artifact.digest THEN artifact.data ELSE excluded.data END

-- name: get_artifact
-- What has another size than was recorded is not read.
SELECT octet_length(data),
    CASE WHEN octet_length(data) = COALESCE(%(size)s, octet_length(data)) THEN data END
FROM artifact WHERE digest = %(digest)s

-- name: list_artifacts
SELECT digest, octet_length(data), put_at FROM artifact WHERE digest > %(after)s ORDER BY digest LIMIT %(limit)s

-- name: delete_artifact
DELETE FROM artifact WHERE digest = %(digest)s AND put_at < %(put_before)s RETURNING octet_length(data)

-- name: find_cached
SELECT key, value, actor, created_at, expires_at, run_id, checksum FROM cached
WHERE key = %(key)s AND (expires_at IS NULL OR expires_at > %(now)s)

-- name: cached
SELECT key, value, actor, created_at, expires_at, run_id, checksum FROM cached
WHERE key > %(after)s ORDER BY key LIMIT %(limit)s

-- name: put_cached
INSERT INTO cached (key, value, actor, created_at, expires_at, run_id, checksum)
VALUES (%(key)s, %(value)s, %(actor)s, %(created_at)s, %(expires_at)s, %(run_id)s, %(checksum)s)
ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, actor = excluded.actor, created_at = excluded.created_at,
    expires_at = excluded.expires_at, run_id = excluded.run_id, checksum = excluded.checksum

-- name: delete_expired
WITH gone AS (DELETE FROM ticket WHERE ends_at <= extract(epoch FROM clock_timestamp()))
DELETE FROM cached WHERE key IN (SELECT key FROM cached WHERE expires_at <= %(now)s ORDER BY expires_at LIMIT %(limit)s)
RETURNING 1

-- name: lock_shared
SELECT pg_advisory_xact_lock(%(lock)s)

-- name: read_shared
-- The clock is read when the lock is ours.
SELECT extract(epoch FROM clock_timestamp())::double precision, shared.state, shared.checksum
FROM (SELECT 1) AS one LEFT JOIN shared ON shared.name = %(shared)s

-- name: put_shared
INSERT INTO shared (name, state, checksum) VALUES (%(shared)s, %(state)s, %(checksum)s)
ON CONFLICT (name) DO UPDATE SET state = excluded.state, checksum = excluded.checksum

-- name: all_shared
SELECT name, state, checksum FROM shared

-- name: read_hold
SELECT held_until, checksum FROM held WHERE limited = %(limited)s

-- name: read_tickets
SELECT taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket WHERE limited = %(limited)s ORDER BY taken_at

-- name: all_tickets
SELECT limited, taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket

-- name: all_holds
SELECT limited, held_until, checksum FROM held

-- name: all_present
SELECT run, at, facts, checksum FROM present

-- name: ask_for
INSERT INTO control (run, id, verb, arguments, author, reason, asked_at, checksum, answer_checksum)
VALUES (%(number)s, %(id)s, %(verb)s, %(arguments)s, %(author)s, %(reason)s, %(asked_at)s, %(checksum)s, %(answer_checksum)s)
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: requests
SELECT id, verb, arguments, author, reason, asked_at, applied_at, answer, checksum, answer_checksum FROM control
WHERE run = %(number)s AND (%(is_open)s::boolean IS NULL OR (applied_at IS NULL) = %(is_open)s) ORDER BY number

-- name: answer_request
UPDATE control SET applied_at = %(applied_at)s, answer = %(answer)s, answer_checksum = %(answer_checksum)s
FROM run
WHERE run.number = %(number)s AND run.fence = %(fence)s AND control.run = run.number AND id = %(id)s AND applied_at IS NULL
RETURNING pg_notify(%(changes)s, '')

-- name: all_requests
SELECT id, verb, arguments, author, reason, asked_at, applied_at, answer, checksum, answer_checksum FROM control

-- name: all_pieces
SELECT key, attempt, position, text, at, checksum FROM streaming

-- name: all_watchers
SELECT key, until, checksum FROM watching

-- name: count_unsealed
SELECT count(*) FROM event WHERE checksum IS NULL

-- name: unsealed_events
SELECT run, sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total, attempt,
    seconds, message, ok, more
FROM event
WHERE (run, sequence) > (%(run)s, %(after)s) AND checksum IS NULL
ORDER BY run, sequence
LIMIT %(limit)s

-- name: outcomes_between
SELECT sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, more, size
FROM outcome
WHERE run = %(run)s AND sequence BETWEEN %(first)s AND %(last)s
ORDER BY sequence

-- name: seal_events
UPDATE event SET call_checksum = sealed.call_checksum, checksum = sealed.checksum
FROM unnest(%(sequence)s, %(call_checksum)s, %(checksum)s) AS sealed (sequence, call_checksum, checksum)
WHERE event.run = %(run)s AND event.sequence = sealed.sequence

-- name: seal_outcomes
UPDATE outcome SET checksum = sealed.checksum
FROM unnest(%(sequence)s, %(checksum)s) AS sealed (sequence, checksum)
WHERE outcome.run = %(run)s AND outcome.sequence = sealed.sequence

-- name: seal_run
UPDATE run
SET owner = %(owner)s, process = %(process)s, fence = %(fence)s, name_checksum = %(name_checksum)s,
    checksum = %(checksum)s, status_checksum = %(status_checksum)s, holder_checksum = %(holder_checksum)s
WHERE number = %(number)s

-- name: seal_question
UPDATE question
SET name_checksum = %(name_checksum)s, checksum = %(checksum)s, answer_checksum = %(answer_checksum)s
WHERE run = (SELECT number FROM run WHERE run_id = %(run_id)s) AND id = %(id)s

-- name: seal_cached
UPDATE cached SET checksum = sealed.checksum
FROM unnest(%(key)s, %(checksum)s) AS sealed (key, checksum)
WHERE cached.key = sealed.key

-- name: numbered_tickets
SELECT number, limited, taken_at, ends_at, amounts FROM ticket

-- name: seal_ticket
UPDATE ticket SET checksum = %(checksum)s, amounts_checksum = %(amounts_checksum)s WHERE number = %(number)s

-- name: seal_hold
UPDATE held SET checksum = %(checksum)s WHERE limited = %(limited)s

-- name: lock_tables
-- Programs of an older version write on until the last transaction; from then on what they write has no checksum.
LOCK TABLE run, event, outcome, question, cached, ticket, held IN EXCLUSIVE MODE

-- name: expect_checksums
ALTER TABLE run
    ALTER COLUMN name_checksum SET NOT NULL, ALTER COLUMN checksum SET NOT NULL,
    ALTER COLUMN status_checksum SET NOT NULL, ALTER COLUMN holder_checksum SET NOT NULL;
ALTER TABLE event ALTER COLUMN call_checksum SET NOT NULL, ALTER COLUMN checksum SET NOT NULL;
ALTER TABLE outcome ALTER COLUMN checksum SET NOT NULL;
ALTER TABLE question
    ALTER COLUMN name_checksum SET NOT NULL, ALTER COLUMN checksum SET NOT NULL,
    ALTER COLUMN answer_checksum SET NOT NULL;
ALTER TABLE cached ALTER COLUMN checksum SET NOT NULL;
ALTER TABLE ticket ALTER COLUMN checksum SET NOT NULL, ALTER COLUMN amounts_checksum SET NOT NULL;
ALTER TABLE held ALTER COLUMN checksum SET NOT NULL

-- name: is_moving
SELECT to_regclass('event_3') IS NOT NULL

-- name: expect_once
-- What the owner of a run decides is held by the database as well, where that is wanted: see `rh_agents.stores._repeated`.
CREATE UNIQUE INDEX outcome_once ON journal (run, key) WHERE ok IS NOT NULL

-- name: is_once
SELECT to_regclass('outcome_once') IS NOT NULL

-- name: owners
SELECT run_id, number, owner, process, fence, heartbeat, heartbeat_at, lease FROM run WHERE owner IS NOT NULL

-- name: let_go
UPDATE run SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL, holder_checksum = %(holder_checksum)s
WHERE number = %(number)s AND fence = %(fence)s

-- name: move
WITH last AS (
    SELECT run, sequence FROM journal ORDER BY run DESC, sequence DESC LIMIT 1
)
INSERT INTO journal (
    run, sequence, timestamp, seconds, parallel_index, group_total, attempt, ok, status, event_type, name, address, key,
    group_id, message, more, call_checksum, checksum,
    epoch, tries, parent_attempt, base, parent, value, artifact, outcome_more, size, outcome_checksum
)
SELECT event.run, event.sequence, event.timestamp, event.seconds, event.parallel_index, event.group_total, event.attempt,
    event.ok, event.status, event.event_type, event.name, event.address, event.key, event.group_id, event.message, event.more,
    event.call_checksum, event.checksum, outcome_3.epoch, outcome_3.tries, outcome_3.parent_attempt, outcome_3.base,
    outcome_3.parent, outcome_3.value, outcome_3.artifact, outcome_3.more, outcome_3.size, outcome_3.checksum
FROM (
    SELECT * FROM event_3
    WHERE (run, sequence) > (COALESCE((SELECT run FROM last), 0), COALESCE((SELECT sequence FROM last), 0))
    ORDER BY run, sequence
    LIMIT %(limit)s
) AS event
LEFT JOIN outcome_3 ON outcome_3.run = event.run AND outcome_3.sequence = event.sequence
RETURNING 1

-- name: compare_moved
SELECT event.run, event.sequence, ROW(
        event.timestamp, event.seconds, event.parallel_index, event.group_total, event.attempt, event.ok, event.status,
        event.event_type, event.name, event.address, event.key, event.group_id, event.message, event.more,
        event.call_checksum, event.checksum, outcome_3.epoch, outcome_3.tries, outcome_3.parent_attempt, outcome_3.base,
        outcome_3.parent, outcome_3.value, outcome_3.artifact, outcome_3.more, outcome_3.size, outcome_3.checksum
    ) IS NOT DISTINCT FROM ROW(
        journal.timestamp, journal.seconds, journal.parallel_index, journal.group_total, journal.attempt, journal.ok,
        journal.status, journal.event_type, journal.name, journal.address, journal.key, journal.group_id, journal.message,
        journal.more, journal.call_checksum, journal.checksum, journal.epoch, journal.tries, journal.parent_attempt,
        journal.base, journal.parent, journal.value, journal.artifact, journal.outcome_more, journal.size,
        journal.outcome_checksum
    )
FROM (
    SELECT * FROM event_3 WHERE (run, sequence) > (%(run)s, %(after)s) ORDER BY run, sequence LIMIT %(limit)s
) AS event
LEFT JOIN outcome_3 ON outcome_3.run = event.run AND outcome_3.sequence = event.sequence
LEFT JOIN journal ON journal.run = event.run AND journal.sequence = event.sequence
ORDER BY event.run, event.sequence

-- name: count_moved
SELECT
    (SELECT count(*) FROM event_3), (SELECT count(*) FROM journal),
    (SELECT count(*) FROM outcome_3), (SELECT count(parent) FROM journal)

-- name: drop_moved
DROP TABLE outcome_3, event_3
