"""What the rest of the core stands on: it imports nothing of it."""
