"""The fixtures of `pytest_rh_agents`, for programs that name this module. pytest itself finds them there."""

from pytest_rh_agents import cassette, jumping_clock, no_real_requests

__all__ = ["cassette", "jumping_clock", "no_real_requests"]
