"""The core: rules that need no event loop, and the runtime that does (see ARCHITECTURE.md for the map)."""
