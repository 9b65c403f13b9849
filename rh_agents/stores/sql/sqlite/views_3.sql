-- What stands for the tables of today in a file of schema 3: an event and its outcome were two rows.

-- name: journal
SELECT
  event.place, event.timestamp, event.status, event.event_type, event.name, event.address, event.key,
  event.group_id, event.parallel_index, event.group_total, event.attempt, event.seconds, event.message,
  event.ok, event.more, event.call_checksum, event.checksum, outcome.base, outcome.parent, outcome.epoch,
  outcome.tries, outcome.parent_attempt, outcome.artifact, outcome.size, outcome.more AS outcome_more,
  outcome.checksum AS outcome_checksum, outcome.value, NULL AS input, NULL AS input_checksum
FROM main.event AS event LEFT JOIN main.outcome AS outcome ON outcome.place = event.place
