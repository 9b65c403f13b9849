"""From the bytes of an input to items: its format, its tables, its lines, each item with its position."""
