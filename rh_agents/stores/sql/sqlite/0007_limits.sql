-- What processes share of limits and budgets: one row under a name, which is read and written as a whole. Everything here is
-- added. What was taken out of windows before still counts there; a program of the version before that has the file open
-- cannot take any more out of them, since it would not see what is taken here: its run stops, and can be resumed.

CREATE TABLE shared (
  name TEXT PRIMARY KEY,            -- of what it is, a colon, and the name that processes have in common
  state TEXT NOT NULL,              -- a JSON object
  checksum INTEGER NOT NULL
) STRICT;

CREATE TRIGGER ticket_closed BEFORE INSERT ON ticket BEGIN
  SELECT RAISE(ABORT, 'shared limits are kept in another way since schema 7: upgrade rh_agents');
END;
