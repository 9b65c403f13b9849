-- Checksums: what a disk has changed is noticed when it is read. They are CRC-32, as signed numbers, of what a row says; see
-- `rh_agents/stores/_checksums.py`. Rows that are there get theirs afterwards, a batch at a time, and only then the
-- database has this version: until then its columns are NULL, and later that counts as damage.

ALTER TABLE run ADD COLUMN name_checksum INTEGER;   -- of the name, so that a run whose name is damaged is not begun anew
ALTER TABLE run ADD COLUMN checksum INTEGER;        -- of what only an opening changes
ALTER TABLE run ADD COLUMN status_checksum INTEGER; -- of status, reason and ended_at
ALTER TABLE run ADD COLUMN holder_checksum INTEGER; -- of owner, process and fence

CREATE INDEX run_named ON run (name_checksum);

ALTER TABLE event ADD COLUMN call_checksum INTEGER; -- of what the fold over a journal reads
ALTER TABLE event ADD COLUMN checksum INTEGER;

ALTER TABLE outcome ADD COLUMN size INTEGER;        -- bytes of the artifact; NULL also where an older version wrote it
ALTER TABLE outcome ADD COLUMN checksum INTEGER;    -- of the outcome and of what its event says of it

ALTER TABLE question ADD COLUMN name_checksum INTEGER;
ALTER TABLE question ADD COLUMN checksum INTEGER;        -- of what is asked
ALTER TABLE question ADD COLUMN answer_checksum INTEGER; -- of what became of it

CREATE INDEX question_named ON question (name_checksum);

ALTER TABLE cached ADD COLUMN checksum INTEGER;

ALTER TABLE ticket ADD COLUMN checksum INTEGER;         -- of the window and the times
ALTER TABLE ticket ADD COLUMN amounts_checksum INTEGER;

ALTER TABLE held ADD COLUMN checksum INTEGER;
