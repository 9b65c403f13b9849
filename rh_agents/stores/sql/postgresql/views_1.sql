-- The same of schema 1: there were no results and windows that runs share. The rest is as in `views_2.sql`.

-- name: cached
SELECT NULL::bytea AS key, NULL::bytea AS value, NULL::text AS actor, NULL::double precision AS created_at,
    NULL::double precision AS expires_at, NULL::text AS run_id, NULL::integer AS checksum
WHERE false

-- name: ticket
SELECT NULL::bigint AS number, NULL::text AS limited, NULL::double precision AS taken_at, NULL::double precision AS ends_at,
    NULL::text AS amounts, NULL::integer AS checksum, NULL::integer AS amounts_checksum
WHERE false

-- name: held
SELECT NULL::text AS limited, NULL::double precision AS held_until, NULL::integer AS checksum WHERE false
