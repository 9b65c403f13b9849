-- What people see of a run, and what they ask of it. Everything here is added: no row of the journal is touched, and a
-- program of the version before that has the file open goes on writing to it, since it names the columns that it writes.

-- What a call was called with, in brief: see `record_inputs`. It has a checksum of its own, so that who reads outcomes need
-- not read it. Both are NULL where nothing was recorded.
ALTER TABLE journal ADD COLUMN input TEXT;
ALTER TABLE journal ADD COLUMN input_checksum INTEGER;

-- Both are partial, so a call that succeeds at its first try costs nothing. Every index ends with the place.
CREATE INDEX journal_failed ON journal (ok) WHERE ok = 0;
CREATE INDEX journal_tried_again ON journal (place) WHERE base IS NOT NULL;

-- What the owner of a run says of it about once a second. Gone when the run is let go of; after a crash, what was last said.
CREATE TABLE present (
  run INTEGER PRIMARY KEY REFERENCES run (number) ON DELETE CASCADE,
  at REAL NOT NULL,                 -- when that was, by the owner's clock
  facts TEXT NOT NULL,              -- a JSON object
  checksum INTEGER NOT NULL
) STRICT;

-- What people want of whoever executes a run. The owner applies each request once, and says what came of it.
CREATE TABLE control (
  number INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which they count
  run INTEGER NOT NULL REFERENCES run (number) ON DELETE CASCADE,
  id TEXT NOT NULL UNIQUE,          -- a UUID, 32 hexadecimal digits
  verb TEXT NOT NULL,
  arguments TEXT NOT NULL,          -- a JSON object
  author TEXT,
  reason TEXT,
  asked_at REAL NOT NULL,
  applied_at REAL,                  -- NULL while it is open
  answer TEXT,                      -- a JSON object: what came of it
  checksum INTEGER NOT NULL,        -- of what is asked
  answer_checksum INTEGER NOT NULL  -- of what came of it
) STRICT;

CREATE INDEX control_of_run ON control (run);
CREATE INDEX control_open ON control (run) WHERE applied_at IS NULL;

-- Text of calls that are under way, for those who look. Gone when the outcome is recorded, and never part of a replay.
CREATE TABLE streaming (
  run INTEGER NOT NULL REFERENCES run (number) ON DELETE CASCADE,
  key BLOB NOT NULL CHECK (length(key) = 32), -- of the call
  attempt INTEGER NOT NULL,
  position INTEGER NOT NULL,        -- how many characters came before
  text TEXT NOT NULL,
  at REAL NOT NULL,
  checksum INTEGER NOT NULL,
  PRIMARY KEY (run, key, attempt, position)
) STRICT;

-- Which calls somebody looks at now, so that their text is worth writing down.
CREATE TABLE watching (
  run INTEGER NOT NULL REFERENCES run (number) ON DELETE CASCADE,
  key BLOB NOT NULL CHECK (length(key) = 32),
  until REAL NOT NULL,              -- from then on nobody does
  checksum INTEGER NOT NULL,
  PRIMARY KEY (run, key)
) STRICT;
