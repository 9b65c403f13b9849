-- The same of schema 1: there were no results and windows that runs share. The rest is as in `views_2.sql`.

-- name: cached
SELECT NULL AS key, NULL AS value, NULL AS actor, NULL AS created_at, NULL AS expires_at, NULL AS run_id, NULL AS checksum
WHERE false

-- name: ticket
SELECT NULL AS number, NULL AS limited, NULL AS taken_at, NULL AS ends_at, NULL AS amounts, NULL AS checksum,
  NULL AS amounts_checksum
WHERE false

-- name: held
SELECT NULL AS limited, NULL AS held_until, NULL AS checksum WHERE false
