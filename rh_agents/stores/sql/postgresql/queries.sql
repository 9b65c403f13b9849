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
new_event AS (
    INSERT INTO event (
        run, sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
        attempt, seconds, message, ok, more
    )
    SELECT * FROM unnest(
        %(event_run)s, %(event_sequence)s, %(event_timestamp)s, %(event_status)s, %(event_event_type)s, %(event_name)s,
        %(event_address)s, %(event_key)s, %(event_group_id)s, %(event_parallel_index)s, %(event_group_total)s,
        %(event_attempt)s, %(event_seconds)s, %(event_message)s, %(event_ok)s, %(event_more)s
    ) AS event (run)
    WHERE event.run IN (SELECT number FROM moved)
),
new_outcome AS (
    INSERT INTO outcome (
        run, sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, more
    )
    SELECT * FROM unnest(
        %(outcome_run)s, %(outcome_sequence)s, %(outcome_key)s, %(outcome_ok)s, %(outcome_base)s, %(outcome_parent)s,
        %(outcome_epoch)s, %(outcome_tries)s, %(outcome_parent_attempt)s, %(outcome_value)s, %(outcome_artifact)s,
        %(outcome_more)s
    ) AS outcome (run)
    WHERE outcome.run IN (SELECT number FROM moved)
)
SELECT number, stop_requested, pg_notify(%(changes)s, '') FROM moved

-- name: renew
UPDATE run
SET heartbeat = run.heartbeat + 1, heartbeat_at = %(now)s
FROM unnest(%(number)s, %(fence)s) AS held (number, fence)
WHERE run.number = held.number AND run.fence = held.fence
RETURNING run.number, run.stop_requested

-- name: look
SELECT run.number, run.stop_requested
FROM run JOIN unnest(%(number)s, %(fence)s) AS held (number, fence) USING (number, fence)

-- name: create
INSERT INTO run (
    run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner, process,
    fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from
)
VALUES (
    %(run_id)s, %(status)s, %(epoch)s, %(workflow)s, %(input)s, %(input_digest)s, %(tags)s, %(facts)s, %(created_at)s,
    %(updated_at)s, %(ended_at)s, %(owner)s, %(process)s, %(fence)s, %(heartbeat)s, %(heartbeat_at)s, %(lease)s,
    %(last_sequence)s, %(outcomes)s, %(reason)s, %(stop_requested)s, %(forked_from)s
)
ON CONFLICT (run_id) DO NOTHING
RETURNING number, pg_notify(%(changes)s, '')

-- name: replace
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
    forked_from = %(forked_from)s
WHERE number = %(number)s AND fence = %(expected_fence)s AND heartbeat = %(expected_heartbeat)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: release
UPDATE run
SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL
WHERE number = %(number)s AND fence = %(fence)s
RETURNING pg_notify(%(changes)s, '')

-- name: release_with_status
UPDATE run
SET owner = NULL,
    process = NULL,
    fence = fence + 1,
    stop_requested = NULL,
    status = %(status)s,
    reason = %(reason)s,
    updated_at = %(now)s,
    ended_at = CASE WHEN %(status)s IN ('completed', 'failed', 'cancelled') THEN %(now)s::double precision END
WHERE number = %(number)s AND fence = %(fence)s
RETURNING pg_notify(%(changes)s, '')

-- name: delete
WITH gone AS (
    DELETE FROM run WHERE number = %(number)s AND fence = %(fence)s RETURNING number, run_id
),
gone_event AS (
    DELETE FROM event WHERE run IN (SELECT number FROM gone)
),
gone_outcome AS (
    DELETE FROM outcome WHERE run IN (SELECT number FROM gone)
),
gone_cached AS (
    DELETE FROM cached WHERE run_id IN (SELECT run_id FROM gone)
)
SELECT pg_notify(%(changes)s, '') FROM gone

-- name: copy
-- One statement sees the source as it is at one moment. `kept` numbers the events anew. An edited outcome counts, so what
-- said that the key is superseded stays behind.
WITH source AS (
    SELECT * FROM run WHERE number = %(source)s
),
edit AS (
    SELECT * FROM unnest(%(edit_key)s, %(edit_ok)s, %(edit_value)s, %(edit_artifact)s, %(edit_message)s)
        AS edit (key, ok, value, artifact, message)
),
kept AS MATERIALIZED (
    SELECT event.*, row_number() OVER (ORDER BY event.sequence) AS place
    FROM event
    WHERE event.run = %(source)s
        AND NOT EXISTS (SELECT FROM unnest(%(leave_out)s) AS gone (key) WHERE gone.key = event.key)
        AND NOT (event.status = 'superseded' AND EXISTS (SELECT FROM edit WHERE edit.key = event.key))
),
kept_outcome AS MATERIALIZED (
    SELECT outcome.*, kept.place
    FROM outcome JOIN kept ON kept.sequence = outcome.sequence
    WHERE outcome.run = %(source)s
),
fork AS (
    INSERT INTO run (
        run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, fence, heartbeat,
        heartbeat_at, lease, last_sequence, outcomes, forked_from
    )
    SELECT %(run_id)s, 'started', epoch, workflow, input, input_digest, tags, facts, %(now)s, %(now)s, 0, 0,
        %(now)s, lease, (SELECT count(*) FROM kept), (SELECT count(*) FROM kept_outcome), run_id
    FROM source
    ON CONFLICT (run_id) DO NOTHING
    RETURNING number
),
new_event AS (
    INSERT INTO event (
        run, sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total,
        attempt, seconds, message, ok, more
    )
    SELECT fork.number, kept.place, kept.timestamp,
        CASE WHEN edit.key IS NULL THEN kept.status WHEN edit.ok THEN 'completed' ELSE 'failed' END,
        kept.event_type, kept.name, kept.address, kept.key, kept.group_id, kept.parallel_index, kept.group_total,
        kept.attempt, kept.seconds,
        CASE WHEN edit.key IS NULL THEN kept.message ELSE edit.message END,
        COALESCE(edit.ok, kept.ok), kept.more
    FROM fork CROSS JOIN kept LEFT JOIN edit ON edit.key = kept.key AND kept.ok IS NOT NULL
),
new_outcome AS (
    INSERT INTO outcome (run, sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, more)
    SELECT fork.number, kept.place, kept.key, COALESCE(edit.ok, kept.ok), kept.base, kept.parent, kept.epoch, kept.tries,
        kept.parent_attempt,
        CASE WHEN edit.key IS NULL THEN kept.value ELSE edit.value END,
        CASE WHEN edit.key IS NULL THEN kept.artifact ELSE edit.artifact END,
        kept.more
    FROM fork CROSS JOIN kept_outcome AS kept LEFT JOIN edit ON edit.key = kept.key
)
SELECT pg_notify(%(changes)s, '') FROM fork

-- name: ask
-- The lock keeps the run from being taken over until the question is there.
INSERT INTO question (run, id, address, text, schema, asked_at, answer, answered_at, answered_by, problem)
SELECT number, %(id)s, %(address)s, %(text)s, %(schema)s, %(asked_at)s, %(answer)s, %(answered_at)s, %(answered_by)s,
    %(problem)s
FROM run
WHERE number = %(number)s AND fence = %(fence)s
FOR SHARE
ON CONFLICT (run, id) DO NOTHING
RETURNING pg_notify(%(changes)s, '')

-- name: held_question
SELECT '' AS run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem
FROM run JOIN question ON question.run = run.number
WHERE run.number = %(number)s AND run.fence = %(fence)s AND question.id = %(id)s

-- name: reject_answer
WITH held AS (
    SELECT number FROM run WHERE number = %(number)s AND fence = %(fence)s FOR SHARE
),
opened AS (
    UPDATE question
    SET answer = NULL, answered_at = NULL, answered_by = NULL, problem = %(problem)s
    WHERE run IN (SELECT number FROM held) AND id = %(id)s
)
SELECT pg_notify(%(changes)s, '') FROM held

-- name: answer
UPDATE question
SET answer = %(answer)s, answered_at = %(now)s, answered_by = %(by)s, problem = NULL
WHERE run = %(number)s AND id = %(id)s AND answer IS NULL
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: request_stop
UPDATE run SET stop_requested = %(reason)s WHERE number = %(number)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: find_run
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from
FROM run
WHERE run_id = %(run_id)s

-- name: runs
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from
FROM run
WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(updated_before)s::double precision IS NULL OR updated_at < %(updated_before)s)
ORDER BY created_at DESC, number DESC

-- name: runs_with_tag
-- Found by the tag first, and then sorted: MATERIALIZED keeps the planner from reading all runs in the order of their age.
WITH tagged AS MATERIALIZED (
    SELECT * FROM run WHERE tags @> %(tag)s
)
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from
FROM tagged
WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(updated_before)s::double precision IS NULL OR updated_at < %(updated_before)s)
ORDER BY created_at DESC, number DESC

-- name: calls
-- Only for failures the large table is looked at.
SELECT sequence, status, key, attempt, group_id, ok,
    CASE WHEN strpos(more, '"usage"') + strpos(more, '"charges"') + strpos(more, '"from_cache"') + strpos(more, '"lost"') > 0 THEN name END,
    CASE WHEN strpos(more, '"usage"') + strpos(more, '"charges"') + strpos(more, '"from_cache"') + strpos(more, '"lost"') > 0 THEN more END,
    CASE WHEN NOT ok THEN
        (SELECT epoch FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END,
    CASE WHEN NOT ok THEN
        (SELECT tries FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END,
    CASE WHEN NOT ok THEN
        (SELECT parent_attempt FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END
FROM event
WHERE run = %(number)s AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s

-- name: events
-- A RECOVERED event tells of the outcome that its key has elsewhere in the journal.
SELECT event.sequence, event.timestamp, event.status, event.event_type, event.name, event.address, event.key,
    event.group_id, event.parallel_index, event.group_total, event.attempt, event.seconds, event.message, event.ok,
    event.more,
    COALESCE(own.ok, earlier.ok), COALESCE(own.value, earlier.value), COALESCE(own.artifact, earlier.artifact)
FROM (
    SELECT * FROM event WHERE run = %(number)s AND sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
) AS event
LEFT JOIN outcome AS own ON own.run = event.run AND own.sequence = event.sequence
LEFT JOIN outcome AS earlier
    ON earlier.run = event.run AND earlier.key = CASE WHEN event.status = 'recovered' THEN event.key END
ORDER BY event.sequence

-- name: outcomes
SELECT outcome.sequence, outcome.key, outcome.ok, outcome.base, outcome.parent, outcome.epoch, outcome.tries,
    outcome.parent_attempt, outcome.value, outcome.artifact, outcome.more,
    event.name, event.address, event.seconds, event.attempt, event.group_id
FROM (
    SELECT * FROM outcome WHERE run = %(number)s AND sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
) AS outcome
JOIN event ON event.run = outcome.run AND event.sequence = outcome.sequence
ORDER BY outcome.sequence

-- name: sequences
SELECT key, sequence FROM outcome WHERE run = %(number)s AND key = ANY(%(keys)s)

-- name: question
SELECT run.run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem
FROM question JOIN run ON run.number = question.run
WHERE question.run = %(number)s AND question.id = %(id)s

-- name: questions
SELECT run.run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem
FROM question JOIN run ON run.number = question.run
WHERE (%(run_id)s::text IS NULL OR run.run_id = %(run_id)s) AND (NOT %(is_open)s OR question.answer IS NULL)
ORDER BY question.asked_at, question.run, question.id

-- name: used_artifacts
SELECT DISTINCT artifact FROM outcome WHERE artifact = ANY(%(digests)s)

-- name: all_artifacts
SELECT DISTINCT artifact FROM outcome WHERE artifact > %(after)s ORDER BY artifact LIMIT %(limit)s

-- name: finding_gaps
SELECT run.run_id, run.last_sequence, count(event.sequence), max(event.sequence)
FROM run LEFT JOIN event ON event.run = run.number
GROUP BY run.number
HAVING count(event.sequence) <> run.last_sequence
    OR COALESCE(min(event.sequence), 1) <> 1
    OR COALESCE(max(event.sequence), 0) <> run.last_sequence
ORDER BY run.number

-- name: finding_counts
SELECT run.run_id, run.outcomes, count(outcome.sequence)
FROM run LEFT JOIN outcome ON outcome.run = run.number
GROUP BY run.number
HAVING count(outcome.sequence) <> run.outcomes
ORDER BY run.number

-- name: finding_pairs
SELECT run.run_id, COALESCE(outcome.sequence, event.sequence), outcome.run IS NOT NULL, event.run IS NOT NULL
FROM outcome FULL JOIN (SELECT * FROM event WHERE ok IS NOT NULL) AS event
    ON event.run = outcome.run AND event.sequence = outcome.sequence
LEFT JOIN run ON run.number = COALESCE(outcome.run, event.run)
WHERE event.run IS NULL OR outcome.run IS NULL OR event.key IS DISTINCT FROM outcome.key OR event.ok <> outcome.ok
ORDER BY 1, 2

-- name: finding_keys
SELECT run.run_id, outcome.key, count(*)
FROM outcome LEFT JOIN run ON run.number = outcome.run
GROUP BY outcome.run, run.run_id, outcome.key
HAVING count(*) > 1
ORDER BY 1, 2

-- name: put_artifact
INSERT INTO artifact (digest, put_at, data)
VALUES (%(digest)s, extract(epoch FROM clock_timestamp()), %(data)s)
ON CONFLICT (digest) DO UPDATE
SET put_at = excluded.put_at,
    data = CASE WHEN sha256(artifact.data) = artifact.digest THEN artifact.data ELSE excluded.data END

-- name: get_artifact
SELECT data FROM artifact WHERE digest = %(digest)s

-- name: list_artifacts
SELECT digest, octet_length(data), put_at FROM artifact WHERE digest > %(after)s ORDER BY digest LIMIT %(limit)s

-- name: delete_artifact
DELETE FROM artifact WHERE digest = %(digest)s AND put_at < %(put_before)s RETURNING octet_length(data)

-- name: find_cached
SELECT key, value, actor, created_at, expires_at, run_id FROM cached
WHERE key = %(key)s AND (expires_at IS NULL OR expires_at > %(now)s)

-- name: put_cached
INSERT INTO cached (key, value, actor, created_at, expires_at, run_id)
VALUES (%(key)s, %(value)s, %(actor)s, %(created_at)s, %(expires_at)s, %(run_id)s)
ON CONFLICT (key) DO UPDATE SET
    value = excluded.value, actor = excluded.actor, created_at = excluded.created_at,
    expires_at = excluded.expires_at, run_id = excluded.run_id

-- name: delete_expired
WITH gone AS (DELETE FROM ticket WHERE ends_at <= extract(epoch FROM clock_timestamp()))
DELETE FROM cached WHERE expires_at <= %(now)s

-- name: lock_window
SELECT pg_advisory_xact_lock(%(lock)s)

-- name: read_window
-- The clock is read when the lock is ours.
SELECT extract(epoch FROM clock_timestamp())::double precision,
    (SELECT held_until FROM held WHERE limited = %(limited)s)

-- name: read_tickets
SELECT taken_at, amounts FROM ticket WHERE limited = %(limited)s AND taken_at > %(since)s ORDER BY taken_at

-- name: delete_old_tickets
DELETE FROM ticket WHERE limited = %(limited)s AND ends_at <= %(now)s

-- name: add_ticket
INSERT INTO ticket (limited, taken_at, ends_at, amounts)
VALUES (%(limited)s, %(taken_at)s, %(ends_at)s, %(amounts)s) RETURNING number

-- name: settle_ticket
UPDATE ticket SET amounts = %(amounts)s WHERE number = %(number)s AND limited = %(limited)s

-- name: hold
INSERT INTO held (limited, held_until)
VALUES (%(limited)s, extract(epoch FROM clock_timestamp())::double precision + %(seconds)s)
ON CONFLICT (limited) DO UPDATE SET held_until = greatest(held.held_until, excluded.held_until)
