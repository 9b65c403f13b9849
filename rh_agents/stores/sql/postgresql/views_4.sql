-- What stands for the tables of today in a schema of version 4: nothing was said of what calls were called with, nor of now.

-- name: journal
SELECT run, sequence, timestamp, seconds, parallel_index, group_total, size, attempt, call_checksum, checksum, epoch, tries,
    parent_attempt, outcome_checksum, ok, status, event_type, name, address, key, group_id, message, more, base, parent,
    outcome_more, artifact, value, NULL::text AS input, NULL::integer AS input_checksum
FROM journal

-- name: present
SELECT NULL::bigint AS run, NULL::double precision AS at, NULL::text AS facts, NULL::integer AS checksum WHERE false

-- name: control
SELECT NULL::bigint AS number, NULL::bigint AS run, NULL::text AS id, NULL::text AS verb, NULL::text AS arguments,
    NULL::text AS author, NULL::text AS reason, NULL::double precision AS asked_at, NULL::double precision AS applied_at,
    NULL::text AS answer, NULL::integer AS checksum, NULL::integer AS answer_checksum
WHERE false

-- name: streaming
SELECT NULL::bigint AS run, NULL::bytea AS key, NULL::integer AS attempt, NULL::bigint AS position, NULL::text AS text,
    NULL::double precision AS at, NULL::integer AS checksum
WHERE false

-- name: watching
SELECT NULL::bigint AS run, NULL::bytea AS key, NULL::double precision AS until, NULL::integer AS checksum WHERE false
