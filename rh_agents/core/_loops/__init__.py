"""Event loops, threads and executors."""
