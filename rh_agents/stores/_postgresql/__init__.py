"""PostgreSQL for the common engine: what `rh_agents.stores._backend` asks for, of a server."""
