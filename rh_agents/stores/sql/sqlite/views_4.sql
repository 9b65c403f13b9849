-- What stands for the tables of today in a file of schema 4: nothing was said of what calls were called with, nor of now.

-- name: journal
SELECT
  place, timestamp, status, event_type, name, address, key, group_id, parallel_index, group_total, attempt, seconds, message,
  ok, more, call_checksum, checksum, base, parent, epoch, tries, parent_attempt, artifact, size, outcome_more,
  outcome_checksum, value, NULL AS input, NULL AS input_checksum
FROM main.journal

-- name: present
SELECT NULL AS run, NULL AS at, NULL AS facts, NULL AS checksum WHERE false

-- name: control
SELECT NULL AS number, NULL AS run, NULL AS id, NULL AS verb, NULL AS arguments, NULL AS author, NULL AS reason,
  NULL AS asked_at, NULL AS applied_at, NULL AS answer, NULL AS checksum, NULL AS answer_checksum
WHERE false

-- name: streaming
SELECT NULL AS run, NULL AS key, NULL AS attempt, NULL AS position, NULL AS text, NULL AS at, NULL AS checksum WHERE false

-- name: watching
SELECT NULL AS run, NULL AS key, NULL AS until, NULL AS checksum WHERE false
