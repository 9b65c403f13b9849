"""Who a call is and what becomes of it on replay. Pure: no event loop, no clock, no chance."""
