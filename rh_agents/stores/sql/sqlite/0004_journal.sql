-- The journal is one table: an outcome stands in the row of the event that reports it. What was in the tables event and
-- outcome is copied afterwards, a batch at a time; until then they are event_3 and outcome_3, which no older program
-- finds, and what reads goes on to read those (see `rh_agents/stores/_sqlite/moving.py`).

ALTER TABLE outcome RENAME TO outcome_3;
ALTER TABLE event RENAME TO event_3;
DROP INDEX outcome_artifact;

-- Facts in the order in which they were recorded, never changed, only added. `place` is the run and the sequence in one
-- number, number of the run * 2^40 + sequence; sequences are counted from 1, without gaps, for each run. There is no
-- index but this one: whatever is looked up by a key is found by the fold over the journal. Of several outcomes of one
-- key the first one counts, for everybody. Later columns stand behind `value`, which is the only large one.
CREATE TABLE journal (
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
  more TEXT,                        -- a JSON object of what few events have
  call_checksum INTEGER,            -- of what the fold over a journal reads
  checksum INTEGER,                 -- of all up to here
  base BLOB,                        -- from here on only of outcomes: the call's place in the program, if not its key
  parent BLOB,
  epoch INTEGER,                    -- epoch, tries and parent_attempt: which execution of the parent made it
  tries INTEGER,
  parent_attempt INTEGER,
  artifact BLOB,                    -- SHA-256 of the value, if it is a file
  size INTEGER,                     -- bytes of the artifact; NULL also where an older version wrote it
  outcome_more TEXT,                -- a JSON object of what differs from the event; nearly always NULL
  outcome_checksum INTEGER,         -- of the outcome and of what its event says of it
  value TEXT                        -- what the call returned, or what it raised, as typed JSON
) STRICT;

CREATE INDEX journal_artifact ON journal (artifact) WHERE artifact IS NOT NULL;
