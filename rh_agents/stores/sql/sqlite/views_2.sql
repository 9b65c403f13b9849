-- The same of schema 2: rows had no checksums.

-- name: journal
SELECT
  event.place, event.timestamp, event.status, event.event_type, event.name, event.address, event.key,
  event.group_id, event.parallel_index, event.group_total, event.attempt, event.seconds, event.message,
  event.ok, event.more, NULL AS call_checksum, NULL AS checksum, outcome.base, outcome.parent, outcome.epoch,
  outcome.tries, outcome.parent_attempt, outcome.artifact, NULL AS size, outcome.more AS outcome_more,
  NULL AS outcome_checksum, outcome.value, NULL AS input, NULL AS input_checksum
FROM main.event AS event LEFT JOIN main.outcome AS outcome ON outcome.place = event.place

-- name: run
SELECT
  number, run_id, status, epoch, workflow, input_digest, tags, facts, created_at, updated_at, ended_at, owner, process,
  fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
  NULL AS queue, NULL AS flow, 0 AS priority, NULL AS ready_at, 0 AS claims, NULL AS parent,
  NULL AS name_checksum, NULL AS checksum, NULL AS status_checksum, NULL AS holder_checksum, NULL AS queue_checksum
FROM main.run

-- name: question
SELECT
  run, id, address, text, schema, asked_at, answer, answered_at, answered_by, problem,
  NULL AS name_checksum, NULL AS checksum, NULL AS answer_checksum
FROM main.question

-- name: cached
SELECT key, value, actor, created_at, expires_at, run_id, NULL AS checksum FROM main.cached

-- name: ticket
SELECT number, limited, taken_at, ends_at, amounts, NULL AS checksum, NULL AS amounts_checksum FROM main.ticket

-- name: held
SELECT limited, held_until, NULL AS checksum FROM main.held
