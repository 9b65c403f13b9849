-- What people see of a run, and what they ask of it. Everything here is added: no row of the journal is touched, and a
-- program of the version before that is connected goes on writing, since it names the columns that it writes.

-- What a call was called with, in brief: see `record_inputs`. It has a checksum of its own, so that who reads outcomes need
-- not read it. Both are NULL where nothing was recorded.
ALTER TABLE journal
    ADD COLUMN input text,
    ADD COLUMN input_checksum integer;

-- Both are partial, so a call that succeeds at its first try costs nothing.
CREATE INDEX journal_failed ON journal (run, sequence) WHERE NOT ok;
CREATE INDEX journal_tried_again ON journal (run, sequence) WHERE base IS NOT NULL;

-- What the owner of a run says of it about once a second. Gone when the run is let go of; after a crash, what was last said.
CREATE TABLE present (
    run        bigint PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    at         double precision NOT NULL, -- when that was, by the owner's clock
    facts      text NOT NULL,             -- a JSON object
    checksum   integer NOT NULL
) WITH (fillfactor = 50);                 -- updated every second, beside itself

-- What people want of whoever executes a run. The owner applies each request once, and says what came of it.
CREATE TABLE control (
    number          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- the order in which they count
    run             bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    id              text NOT NULL UNIQUE, -- a UUID, 32 hexadecimal digits
    verb            text NOT NULL,
    arguments       text NOT NULL,        -- a JSON object
    author          text,
    reason          text,
    asked_at        double precision NOT NULL,
    applied_at      double precision,     -- NULL while it is open
    answer          text,                 -- a JSON object: what came of it
    checksum        integer NOT NULL,     -- of what is asked
    answer_checksum integer NOT NULL      -- of what came of it
);

CREATE INDEX control_of_run ON control (run);
CREATE INDEX control_open ON control (run) WHERE applied_at IS NULL;

-- Text of calls that are under way, for those who look. Gone when the outcome is recorded, and never part of a replay.
CREATE TABLE streaming (
    run        bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    key        bytea NOT NULL,            -- of the call
    attempt    integer NOT NULL,
    position   bigint NOT NULL,           -- how many characters came before
    text       text NOT NULL,
    at         double precision NOT NULL,
    checksum   integer NOT NULL,
    PRIMARY KEY (run, key, attempt, position)
);

-- Which calls somebody looks at now, so that their text is worth writing down.
CREATE TABLE watching (
    run        bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    key        bytea NOT NULL,
    until      double precision NOT NULL, -- from then on nobody does
    checksum   integer NOT NULL,
    PRIMARY KEY (run, key)
);
