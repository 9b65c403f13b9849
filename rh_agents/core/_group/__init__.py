"""How a group works: members, their order and slots, and why it ends."""
