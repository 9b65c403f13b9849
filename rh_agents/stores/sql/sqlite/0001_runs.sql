-- The first schema: runs, their journals, and the questions they ask.
--
-- Times are seconds since 1970. Texts are as they were, but for halves of surrogate pairs, which UTF-8 has not: they are
-- written as U+FDD0 and four hexadecimal digits.

CREATE TABLE run (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- by which everything else refers to it; never used again
  run_id TEXT NOT NULL UNIQUE,      -- its name
  status TEXT NOT NULL,             -- started (also if its process died), awaiting, completed, failed or cancelled
  epoch INTEGER NOT NULL,           -- how often it was started again after it had ended
  workflow TEXT NOT NULL,
  input_digest BLOB,
  tags TEXT NOT NULL,               -- a JSON array
  facts TEXT NOT NULL,              -- a JSON object
  created_at REAL NOT NULL,
  updated_at REAL NOT NULL,
  ended_at REAL,                    -- NULL while it has not
  owner TEXT,                       -- who executes it, for people; NULL if nobody does
  process TEXT,                     -- which process that is, so that others can see whether it still exists
  fence INTEGER NOT NULL,           -- another one for each owner: who writes with an old one changes nothing
  heartbeat INTEGER NOT NULL,       -- grows as long as the owner is alive
  heartbeat_at REAL NOT NULL,       -- by the owner's clock
  lease REAL NOT NULL,              -- after so many seconds without a heartbeat somebody else may take the run over
  last_sequence INTEGER NOT NULL,   -- how many events it has
  outcomes INTEGER NOT NULL,        -- how many of them report an outcome
  reason TEXT,                      -- why it was stopped
  stop_requested TEXT,              -- why somebody wants it to be stopped
  forked_from TEXT                  -- the name of the run of which it is a copy
) STRICT;

-- Apart from the row that changes with every commit, because it may be large.
CREATE TABLE run_input (
  run INTEGER PRIMARY KEY REFERENCES run (number) ON DELETE CASCADE,
  input BLOB NOT NULL               -- the arguments, as typed JSON
) STRICT;

-- The journal: facts in the order in which they were recorded, never changed. `place` is
-- number of the run * 2^40 + sequence, and sequences are counted from 1, without gaps, for each run.
CREATE TABLE event (
  place INTEGER PRIMARY KEY,
  timestamp REAL NOT NULL,
  status TEXT NOT NULL,
  event_type TEXT NOT NULL,
  name TEXT NOT NULL,
  address TEXT NOT NULL,
  key BLOB CHECK (length(key) = 32), -- SHA-256, the identity of the call in its run; NULL for groups
  group_id TEXT,
  parallel_index INTEGER,
  group_total INTEGER,
  attempt INTEGER NOT NULL,
  seconds REAL,                     -- how long the call took
  message TEXT,                     -- what went wrong, in one line
  ok INTEGER,                       -- NULL: it reports no outcome; else whether the call succeeded
  more TEXT                         -- a JSON object of what few events have
) STRICT;

-- What calls came to. An outcome has the place of the event that reports it, and tells only what that event does not.
-- That a call has at most one outcome is held by the constraint UNIQUE (run, call).
CREATE TABLE outcome (
  place INTEGER PRIMARY KEY REFERENCES event (place),
  run INTEGER NOT NULL REFERENCES run (number),
  call BLOB NOT NULL CHECK (length(call) = 16), -- the first half of the event's key: as good, and a smaller index
  ok INTEGER NOT NULL,
  base BLOB,                        -- the call's place in the program, if it is another one than its key
  parent BLOB NOT NULL,
  epoch INTEGER NOT NULL,           -- epoch, tries and parent_attempt: which execution of the parent made it
  tries INTEGER NOT NULL,
  parent_attempt INTEGER NOT NULL,
  artifact BLOB,                    -- SHA-256 of the value, if it is a file
  more TEXT,                        -- a JSON object of what differs from the event; nearly always NULL
  value TEXT,                       -- what the call returned, or what it raised, as typed JSON
  UNIQUE (run, call)
) STRICT;

CREATE INDEX outcome_artifact ON outcome (artifact) WHERE artifact IS NOT NULL;

CREATE TABLE question (
  run INTEGER NOT NULL REFERENCES run (number),
  id TEXT NOT NULL,
  address TEXT NOT NULL,
  text TEXT NOT NULL,
  schema TEXT,                      -- the JSON schema of the answer
  asked_at REAL NOT NULL,
  answer BLOB,                      -- JSON text; NULL while there is none
  answered_at REAL,
  answered_by TEXT,
  problem TEXT,                     -- why an earlier answer was not accepted
  PRIMARY KEY (run, id)
) STRICT;

CREATE INDEX question_asked ON question (asked_at);
CREATE INDEX question_open ON question (asked_at) WHERE answer IS NULL;
