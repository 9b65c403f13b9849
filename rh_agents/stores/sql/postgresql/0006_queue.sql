-- Runs that wait for a worker, and what belongs to another run. Everything here is added: no row is touched, and a program
-- of the version before that is connected goes on writing, since it names the columns that it writes.

ALTER TABLE run
    ADD COLUMN queue text,                        -- from which workers take it; NULL: it was never submitted
    ADD COLUMN flow text,                         -- MODULE:FUNCTION, what a worker imports
    ADD COLUMN priority integer NOT NULL DEFAULT 0, -- higher ones first
    ADD COLUMN ready_at double precision,         -- from when on a worker may take it; NULL: none may
    ADD COLUMN claims integer NOT NULL DEFAULT 0, -- how often a worker has taken it without letting go of it
    ADD COLUMN parent bigint REFERENCES run,      -- the run of which it is a part, and is not listed
    ADD COLUMN queue_checksum integer;            -- of these six; NULL if it is in no queue and has no parent

-- All three are partial, so a run that was never submitted costs nothing.
CREATE INDEX run_next ON run (queue, priority DESC, ready_at, number) WHERE ready_at IS NOT NULL;
CREATE INDEX run_ready ON run (queue, ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX run_parent ON run (parent) WHERE parent IS NOT NULL;
