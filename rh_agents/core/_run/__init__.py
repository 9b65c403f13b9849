"""One call from its frame to its outcome."""
