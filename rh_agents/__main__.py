"""`python -m rh_agents` is the command `rh-agents`."""

import sys

from rh_agents.cli import main

if __name__ == "__main__":
    sys.exit(main())
