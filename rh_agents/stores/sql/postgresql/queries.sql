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
        attempt, seconds, message, ok, more, call_checksum, checksum
    )
    SELECT * FROM unnest(
        %(event_run)s, %(event_sequence)s, %(event_timestamp)s, %(event_status)s, %(event_event_type)s, %(event_name)s,
        %(event_address)s, %(event_key)s, %(event_group_id)s, %(event_parallel_index)s, %(event_group_total)s,
        %(event_attempt)s, %(event_seconds)s, %(event_message)s, %(event_ok)s, %(event_more)s,
        %(event_call_checksum)s, %(event_checksum)s
    ) AS event (run)
    WHERE event.run IN (SELECT number FROM moved)
),
new_outcome AS (
    INSERT INTO outcome (
        run, sequence, key, ok, base, parent, epoch, tries, parent_attempt, value, artifact, more, size, checksum
    )
    SELECT * FROM unnest(
        %(outcome_run)s, %(outcome_sequence)s, %(outcome_key)s, %(outcome_ok)s, %(outcome_base)s, %(outcome_parent)s,
        %(outcome_epoch)s, %(outcome_tries)s, %(outcome_parent_attempt)s, %(outcome_value)s, %(outcome_artifact)s,
        %(outcome_more)s, %(outcome_size)s, %(outcome_checksum)s
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
    fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    name_checksum, checksum, status_checksum, holder_checksum
)
VALUES (
    %(run_id)s, %(status)s, %(epoch)s, %(workflow)s, %(input)s, %(input_digest)s, %(tags)s, %(facts)s, %(created_at)s,
    %(updated_at)s, %(ended_at)s, %(owner)s, %(process)s, %(fence)s, %(heartbeat)s, %(heartbeat_at)s, %(lease)s,
    %(last_sequence)s, %(outcomes)s, %(reason)s, %(stop_requested)s, %(forked_from)s,
    %(name_checksum)s, %(checksum)s, %(status_checksum)s, %(holder_checksum)s
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
    forked_from = %(forked_from)s,
    name_checksum = %(name_checksum)s,
    checksum = %(checksum)s,
    status_checksum = %(status_checksum)s,
    holder_checksum = %(holder_checksum)s
WHERE number = %(number)s AND fence = %(expected_fence)s AND heartbeat = %(expected_heartbeat)s
RETURNING pg_notify(%(changes)s, ''), pg_notify(%(requests)s, '')

-- name: release
UPDATE run
SET owner = NULL, process = NULL, fence = fence + 1, stop_requested = NULL, holder_checksum = %(holder_checksum)s
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
    ended_at = %(ended_at)s,
    status_checksum = %(status_checksum)s,
    holder_checksum = %(holder_checksum)s
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

-- name: find_run
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    name_checksum, checksum, status_checksum, holder_checksum
FROM run
WHERE run_id = %(run_id)s OR name_checksum = %(named)s

-- name: runs
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    name_checksum, checksum, status_checksum, holder_checksum
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
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    name_checksum, checksum, status_checksum, holder_checksum
FROM tagged
WHERE (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(updated_before)s::double precision IS NULL OR updated_at < %(updated_before)s)
ORDER BY created_at DESC, number DESC

-- name: calls
-- Only for failures the large table is looked at.
SELECT sequence, status, key, attempt, group_id, ok,
    CASE WHEN more IS NOT NULL THEN name END, more,
    CASE WHEN NOT ok THEN
        (SELECT epoch FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END,
    CASE WHEN NOT ok THEN
        (SELECT tries FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END,
    CASE WHEN NOT ok THEN
        (SELECT parent_attempt FROM outcome WHERE outcome.run = event.run AND outcome.sequence = event.sequence) END,
    call_checksum
FROM event
WHERE run = %(number)s AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s

-- name: events
SELECT sequence, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total, attempt, seconds,
    message, ok, more, checksum
FROM event
WHERE run = %(number)s AND sequence > %(after)s
ORDER BY sequence
LIMIT %(limit)s

-- name: outcomes
SELECT outcome.sequence, outcome.key, outcome.ok, outcome.base, outcome.parent, outcome.epoch, outcome.tries,
    outcome.parent_attempt, outcome.value, outcome.artifact, outcome.more, outcome.size,
    event.name, event.address, event.seconds, event.attempt, event.group_id, outcome.checksum
FROM (
    SELECT * FROM outcome WHERE run = %(number)s AND sequence > %(after)s ORDER BY sequence LIMIT %(limit)s
) AS outcome
JOIN event ON event.run = outcome.run AND event.sequence = outcome.sequence
ORDER BY outcome.sequence

-- name: sequences
SELECT key, sequence FROM outcome WHERE run = %(number)s AND key = ANY(%(keys)s)

-- name: question
SELECT run.run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem, question.name_checksum,
    question.checksum, question.answer_checksum
FROM question JOIN run ON run.number = question.run
WHERE (question.run = %(number)s AND question.id = %(id)s) OR question.name_checksum = %(named)s

-- name: questions
SELECT run.run_id, question.id, question.address, question.text, question.schema, question.asked_at, question.answer,
    question.answered_at, question.answered_by, question.problem, question.name_checksum,
    question.checksum, question.answer_checksum
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
DELETE FROM cached WHERE expires_at <= %(now)s

-- name: lock_window
SELECT pg_advisory_xact_lock(%(lock)s)

-- name: read_window
-- The clock is read when the lock is ours.
SELECT extract(epoch FROM clock_timestamp())::double precision,
    (SELECT held_until FROM held WHERE limited = %(limited)s), (SELECT checksum FROM held WHERE limited = %(limited)s)

-- name: read_tickets
SELECT taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket WHERE limited = %(limited)s ORDER BY taken_at

-- name: all_tickets
SELECT limited, taken_at, ends_at, amounts, checksum, amounts_checksum FROM ticket

-- name: all_holds
SELECT limited, held_until, checksum FROM held

-- name: delete_old_tickets
DELETE FROM ticket WHERE limited = %(limited)s AND ends_at <= %(now)s

-- name: add_ticket
INSERT INTO ticket (limited, taken_at, ends_at, amounts, checksum, amounts_checksum)
VALUES (%(limited)s, %(taken_at)s, %(ends_at)s, %(amounts)s, %(checksum)s, %(amounts_checksum)s) RETURNING number

-- name: settle_ticket
UPDATE ticket SET amounts = %(amounts)s, amounts_checksum = %(amounts_checksum)s
WHERE number = %(number)s AND limited = %(limited)s

-- name: hold
INSERT INTO held (limited, held_until, checksum) VALUES (%(limited)s, %(until)s, %(checksum)s)
ON CONFLICT (limited) DO UPDATE SET held_until = excluded.held_until, checksum = excluded.checksum

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
