"""Runs in memory, in parts: a run, the journal that is open for its owner, what is kept of a value, shared windows."""
