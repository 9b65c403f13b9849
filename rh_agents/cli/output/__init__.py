"""What the commands write: results as JSON lines, pages for people, trees, progress and a summary."""
