-- The first schema. Migrations run inside the schema that the store's URL names, each in a transaction of its own.
--
-- PostgreSQL's text holds neither NUL nor halves of surrogate pairs: they are written as \u0000, \ud800 and so on, and a
-- backslash is doubled. Times are seconds since 1970. Keys and artifacts are SHA-256 digests. Results, errors and inputs
-- are typed JSON in UTF-8: SELECT convert_from(value, 'UTF8') shows them.

-- What is executed, how it stands, and who executes it now.
CREATE TABLE run (
    number         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id         text NOT NULL,
    status         text NOT NULL,
    epoch          integer NOT NULL,
    workflow       text NOT NULL,
    input          bytea,
    input_digest   bytea,
    tags           text[] NOT NULL,
    facts          text NOT NULL,             -- a JSON object of texts
    created_at     double precision NOT NULL,
    updated_at     double precision NOT NULL,
    ended_at       double precision,
    owner          text,                      -- who executes it, for people; NULL: nobody
    process        text,                      -- the same for the program
    fence          bigint NOT NULL,           -- grows whenever the owner changes; checked with every write
    heartbeat      bigint NOT NULL,           -- grows with every sign of life
    heartbeat_at   double precision NOT NULL,
    lease          double precision NOT NULL, -- seconds without a sign of life, after which another owner may come
    last_sequence  bigint NOT NULL,           -- how many events it has
    outcomes       bigint NOT NULL,
    reason         text,
    stop_requested text,
    forked_from    text,
    CONSTRAINT run_once UNIQUE (run_id)
) WITH (fillfactor = 50);                     -- every batch updates the row, and finds room for that beside it

CREATE INDEX run_by_age ON run (created_at DESC, number DESC);
CREATE INDEX run_by_tag ON run USING gin (tags);

-- What happened, in its order: sequence counts from 1 without gaps. There is no foreign key to run, neither here nor in
-- outcome: its check for every row would cost a third of the speed. A statement that adds rows updates the row of their run.
CREATE TABLE event (
    run            bigint NOT NULL,
    sequence       bigint NOT NULL,
    timestamp      double precision NOT NULL,
    seconds        double precision,          -- how long the call took, where it has ended
    parallel_index bigint,
    group_total    bigint,
    attempt        integer NOT NULL,
    ok             boolean,                   -- not NULL: the event reports an outcome, and whether that is a success
    status         text NOT NULL,
    event_type     text NOT NULL,
    name           text NOT NULL,
    address        text NOT NULL,
    key            bytea,
    group_id       text,
    message        text,
    more           text,                      -- a JSON object of what few events have
    PRIMARY KEY (run, sequence)
);

-- What the calls came to. It has the sequence of the event that reports it.
CREATE TABLE outcome (
    run            bigint NOT NULL,
    sequence       bigint NOT NULL,
    epoch          integer NOT NULL,
    tries          integer NOT NULL,
    parent_attempt integer NOT NULL,
    ok             boolean NOT NULL,
    key            bytea NOT NULL,
    base           bytea,                     -- NULL: the same as key
    parent         bytea NOT NULL,
    value          bytea,
    artifact       bytea,                     -- where the value is, if it is large
    more           text,
    PRIMARY KEY (run, sequence),
    CONSTRAINT outcome_once UNIQUE (run, key),
    CONSTRAINT outcome_has_one_value CHECK ((value IS NULL) <> (artifact IS NULL))
);

CREATE INDEX outcome_by_artifact ON outcome (artifact) WHERE artifact IS NOT NULL;

-- What runs want to know from people.
CREATE TABLE question (
    run            bigint NOT NULL REFERENCES run ON DELETE CASCADE,
    id             text NOT NULL,
    address        text NOT NULL,
    text           text NOT NULL,
    schema         text,
    asked_at       double precision NOT NULL,
    answer         bytea,
    answered_at    double precision,
    answered_by    text,
    problem        text,
    PRIMARY KEY (run, id)
);

CREATE INDEX question_by_age ON question (asked_at);

-- Large values, unless the store's URL says that they are kept elsewhere.
CREATE TABLE artifact (
    digest         bytea PRIMARY KEY,
    put_at         double precision NOT NULL,
    data           bytea NOT NULL
);
