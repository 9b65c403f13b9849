-- Runs that wait for a worker, and what belongs to another run. Everything here is added: no row is touched, and a program
-- of the version before that has the file open goes on writing to it, since it names the columns that it writes.

ALTER TABLE run ADD COLUMN queue TEXT;        -- from which workers take it; NULL: it was never submitted
ALTER TABLE run ADD COLUMN flow TEXT;         -- MODULE:FUNCTION, what a worker imports
ALTER TABLE run ADD COLUMN priority INTEGER NOT NULL DEFAULT 0; -- higher ones first
ALTER TABLE run ADD COLUMN ready_at REAL;     -- from when on a worker may take it; NULL: none may
ALTER TABLE run ADD COLUMN claims INTEGER NOT NULL DEFAULT 0; -- how often a worker has taken it without letting go of it
ALTER TABLE run ADD COLUMN parent INTEGER REFERENCES run (number); -- the run of which it is a part, and is not listed
ALTER TABLE run ADD COLUMN queue_checksum INTEGER; -- of these six; NULL if it is in no queue and has no parent

-- All three are partial, so a run that was never submitted costs nothing.
CREATE INDEX run_next ON run (queue, priority DESC, ready_at, number) WHERE ready_at IS NOT NULL;
CREATE INDEX run_ready ON run (queue, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX run_parent ON run (parent) WHERE parent IS NOT NULL;
