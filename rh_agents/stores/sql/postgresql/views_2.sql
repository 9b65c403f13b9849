-- The same of version 2: rows had no checksums.

-- name: journal
SELECT
    event.run, event.sequence, event.timestamp, event.seconds, event.parallel_index, event.group_total,
    event.attempt, event.ok, event.status, event.event_type, event.name, event.address, event.key,
    event.group_id, event.message, event.more, NULL::integer AS call_checksum, NULL::integer AS checksum,
    NULL::bigint AS size, NULL::integer AS outcome_checksum, outcome.epoch, outcome.tries,
    outcome.parent_attempt, outcome.base, outcome.parent, outcome.more AS outcome_more, outcome.artifact,
    outcome.value, NULL::text AS input, NULL::integer AS input_checksum
FROM event AS event LEFT JOIN outcome AS outcome ON outcome.run = event.run AND outcome.sequence = event.sequence

-- name: run
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    NULL::text AS queue, NULL::text AS flow, 0 AS priority, NULL::double precision AS ready_at, 0 AS claims,
    NULL::bigint AS parent, NULL::integer AS name_checksum, NULL::integer AS checksum, NULL::integer AS status_checksum,
    NULL::integer AS holder_checksum, NULL::integer AS queue_checksum
FROM run

-- name: question
SELECT run, id, address, text, schema, asked_at, answer, answered_at, answered_by, problem,
    NULL::integer AS name_checksum, NULL::integer AS checksum, NULL::integer AS answer_checksum
FROM question

-- name: cached
SELECT key, value, actor, created_at, expires_at, run_id, NULL::integer AS checksum FROM cached

-- name: ticket
SELECT number, limited, taken_at, ends_at, amounts, NULL::integer AS checksum, NULL::integer AS amounts_checksum FROM ticket

-- name: held
SELECT limited, held_until, NULL::integer AS checksum FROM held
