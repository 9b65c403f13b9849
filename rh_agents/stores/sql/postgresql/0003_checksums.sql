-- Checksums: what a disk has changed is noticed when it is read. They are CRC-32, as signed numbers, of what a row says; see
-- `rh_agents/stores/_checksums.py`. Rows that are there get theirs afterwards, a batch at a time, and only then the schema
-- has this version: until then its columns are NULL, and later they cannot be.

ALTER TABLE run
    ADD COLUMN IF NOT EXISTS name_checksum integer,   -- of the name, so that a run whose name is damaged is not begun anew
    ADD COLUMN IF NOT EXISTS checksum integer,        -- of what only an opening changes
    ADD COLUMN IF NOT EXISTS status_checksum integer, -- of status, reason and ended_at
    ADD COLUMN IF NOT EXISTS holder_checksum integer; -- of owner, process and fence

CREATE INDEX IF NOT EXISTS run_by_name_checksum ON run (name_checksum);

ALTER TABLE event
    ADD COLUMN IF NOT EXISTS call_checksum integer,   -- of what the fold over a journal reads
    ADD COLUMN IF NOT EXISTS checksum integer;

ALTER TABLE outcome
    ADD COLUMN IF NOT EXISTS size bigint,             -- bytes of the artifact; NULL also where an older version wrote it
    ADD COLUMN IF NOT EXISTS checksum integer;        -- of the outcome and of what its event says of it

ALTER TABLE question
    ADD COLUMN IF NOT EXISTS name_checksum integer,
    ADD COLUMN IF NOT EXISTS checksum integer,        -- of what is asked
    ADD COLUMN IF NOT EXISTS answer_checksum integer; -- of what became of it

CREATE INDEX IF NOT EXISTS question_by_name_checksum ON question (name_checksum);

ALTER TABLE cached
    ADD COLUMN IF NOT EXISTS checksum integer;

ALTER TABLE ticket
    ADD COLUMN IF NOT EXISTS checksum integer,        -- of the window and the times
    ADD COLUMN IF NOT EXISTS amounts_checksum integer;

ALTER TABLE held
    ADD COLUMN IF NOT EXISTS checksum integer;
