-- What runs and processes share: results of equal calls, and windows of rate limits.

CREATE TABLE cached (
    key        bytea PRIMARY KEY,         -- SHA-256 of what equal calls have in common
    value      bytea NOT NULL,            -- the result, as typed JSON
    actor      text NOT NULL,             -- the name of what was called, for people
    created_at double precision NOT NULL,
    expires_at double precision,          -- NULL: never
    run_id     text                       -- the run for which alone it is kept
);

CREATE INDEX cached_by_expiry ON cached (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX cached_by_run ON cached (run_id) WHERE run_id IS NOT NULL;

-- What was taken out of a window, as long as it counts. Times are the server's, since clocks of machines differ.
CREATE TABLE ticket (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    limited  text NOT NULL,               -- the name of the window
    taken_at double precision NOT NULL,
    ends_at  double precision NOT NULL,   -- from then on no window has it any more
    amounts  text NOT NULL                -- a JSON object: how much of what
);

CREATE INDEX ticket_by_window ON ticket (limited, taken_at);
CREATE INDEX ticket_by_end ON ticket (ends_at);

CREATE TABLE held (
    limited    text PRIMARY KEY,
    held_until double precision NOT NULL  -- a provider said so: nobody passes before
);
