"""What decides whether a call may begin now: limits, breakers, budgets, a run that is being stopped."""
