-- What stands for the tables of today in a file of schema 5: there were no queues.

-- name: run
SELECT
  number, run_id, status, epoch, workflow, input_digest, tags, facts, created_at, updated_at, ended_at, owner, process,
  fence, heartbeat, heartbeat_at, lease, last_sequence, outcomes, reason, stop_requested, forked_from,
  NULL AS queue, NULL AS flow, 0 AS priority, NULL AS ready_at, 0 AS claims, NULL AS parent,
  name_checksum, checksum, status_checksum, holder_checksum, NULL AS queue_checksum
FROM main.run
