-- What runs and processes share: results of equal calls, and windows of rate limits.

CREATE TABLE cached (
  key BLOB PRIMARY KEY,             -- SHA-256 of what equal calls have in common
  value TEXT NOT NULL,              -- the result, as typed JSON
  actor TEXT NOT NULL,              -- the name of what was called, for people
  created_at REAL NOT NULL,
  expires_at REAL,                  -- NULL: never
  run_id TEXT                       -- the run for which alone it is kept
) STRICT;

CREATE INDEX cached_expiry ON cached (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX cached_run ON cached (run_id) WHERE run_id IS NOT NULL;

-- What was taken out of a window, as long as it counts.
CREATE TABLE ticket (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  limited TEXT NOT NULL,            -- the name of the window
  taken_at REAL NOT NULL,
  ends_at REAL NOT NULL,            -- from then on no window has it any more
  amounts TEXT NOT NULL             -- a JSON object: how much of what
) STRICT;

CREATE INDEX ticket_window ON ticket (limited, taken_at);
CREATE INDEX ticket_end ON ticket (ends_at);

CREATE TABLE held (
  limited TEXT PRIMARY KEY,
  held_until REAL NOT NULL          -- a provider said so: nobody passes before
) STRICT;
