-- The journal is one table: an outcome stands in the row of the event that reports it. What was in the tables event and
-- outcome is copied afterwards, a batch at a time; until then they are event_3 and outcome_3, which no older program
-- finds, and what reads goes on to read those (see `rh_agents/stores/_postgresql/moving.py`).

ALTER TABLE event RENAME TO event_3;
ALTER TABLE outcome RENAME TO outcome_3;

-- Facts in the order in which they were recorded, never changed, only added: sequence counts from 1 without gaps. There is
-- no index but the primary key: whatever is looked up by a key is found by the fold over the journal. Of several outcomes
-- of one key the first one counts, for everybody. There is no foreign key to run: its check for every row would cost a
-- third of the speed. A statement that adds rows updates the row of their run.
CREATE TABLE journal (
    run              bigint NOT NULL,
    sequence         bigint NOT NULL,
    timestamp        double precision NOT NULL,
    seconds          double precision,        -- how long the call took, where it has ended
    parallel_index   bigint,
    group_total      bigint,
    size             bigint,                  -- bytes of the artifact; NULL also where an older version wrote it
    attempt          integer NOT NULL,
    call_checksum    integer NOT NULL,        -- of what the fold over a journal reads
    checksum         integer NOT NULL,        -- of the event
    epoch            integer,                 -- epoch, tries and parent_attempt: which execution of the parent made it
    tries            integer,
    parent_attempt   integer,
    outcome_checksum integer,                 -- of the outcome and of what its event says of it
    ok               boolean,                 -- not NULL: the event reports an outcome, and whether that is a success
    status           text NOT NULL,
    event_type       text NOT NULL,
    name             text NOT NULL,
    address          text NOT NULL,
    key              bytea,
    group_id         text,
    message          text,
    more             text,                    -- a JSON object of what few events have
    base             bytea,                   -- of outcomes: the call's place in the program; NULL: the same as key
    parent           bytea,
    outcome_more     text,                    -- a JSON object of what differs from the event; nearly always NULL
    artifact         bytea,                   -- where the value is, if it is large
    value            bytea,
    PRIMARY KEY (run, sequence),
    CONSTRAINT outcome_has_one_value
        CHECK (num_nonnulls(value, artifact) = CASE WHEN ok IS NULL THEN 0 ELSE 1 END)
);

CREATE INDEX journal_by_artifact ON journal (artifact) WHERE artifact IS NOT NULL;
