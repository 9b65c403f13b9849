"""Language models: so far, a small one on this machine (`rh_agents.llms.local`)."""
