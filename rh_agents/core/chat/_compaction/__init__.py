"""How a conversation that grows too long is made shorter: how long it is, what its turns are, what a summary says."""
