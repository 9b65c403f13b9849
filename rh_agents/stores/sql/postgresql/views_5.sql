-- What stands for the tables of today in a schema of version 5: there were no queues.

-- name: run
SELECT number, run_id, status, epoch, workflow, input, input_digest, tags, facts, created_at, updated_at, ended_at, owner,
    process, fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
    NULL::text AS queue, NULL::text AS flow, 0 AS priority, NULL::double precision AS ready_at, 0 AS claims,
    NULL::bigint AS parent, name_checksum, checksum, status_checksum, holder_checksum, NULL::integer AS queue_checksum
FROM run
