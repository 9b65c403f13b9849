-- What processes share of limits and budgets: one row under a name, which is read and written as a whole. Everything here is
-- added. What was taken out of windows before still counts there; a program of the version before that is connected cannot
-- take any more out of them, since it would not see what is taken here: its run stops, and can be resumed.

CREATE TABLE shared (
    name       text PRIMARY KEY,          -- of what it is, a colon, and the name that processes have in common
    state      text NOT NULL,             -- a JSON object
    checksum   integer NOT NULL
) WITH (fillfactor = 50);                 -- updated many times a second, beside itself

CREATE FUNCTION ticket_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'shared limits are kept in another way since schema 7: upgrade rh_agents';
END
$$;

CREATE TRIGGER ticket_closed BEFORE INSERT ON ticket EXECUTE FUNCTION ticket_closed();
