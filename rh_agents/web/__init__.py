"""The local page: runs as they are, and as they go on, in a browser.

`rh-agents web` starts it. It reads a store through the ports of the core and never owns a run; what it changes it asks
for, as the commands do. Who may ask is decided in `rh_agents.web.guard`, before anything else sees a request.
"""
