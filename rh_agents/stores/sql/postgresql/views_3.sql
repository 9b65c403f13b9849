-- What stands for the tables of today in a schema of version 3: an event and its outcome were two rows.

-- name: journal
SELECT
    event.run, event.sequence, event.timestamp, event.seconds, event.parallel_index, event.group_total,
    event.attempt, event.ok, event.status, event.event_type, event.name, event.address, event.key,
    event.group_id, event.message, event.more, event.call_checksum, event.checksum, outcome.size,
    outcome.checksum AS outcome_checksum, outcome.epoch, outcome.tries, outcome.parent_attempt, outcome.base,
    outcome.parent, outcome.more AS outcome_more, outcome.artifact, outcome.value,
    NULL::text AS input, NULL::integer AS input_checksum
FROM event AS event LEFT JOIN outcome AS outcome ON outcome.run = event.run AND outcome.sequence = event.sequence

-- name: orphan
SELECT run, sequence FROM outcome AS outcome
WHERE NOT EXISTS (SELECT FROM event AS event WHERE event.run = outcome.run AND event.sequence = outcome.sequence)
