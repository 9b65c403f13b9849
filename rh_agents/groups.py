"""Groups of calls: what makes them, what they give, and how they stand and end."""

from rh_agents.core.parallel import (
    ErrorStrategy,
    GroupStatus,
    MapHandle,
    MemberHandle,
    MemberResult,
    ParallelDisplayMode,
    ParallelEventGroup,
    ParallelExecutionManager,
    ParallelGroupTracker,
    ResultStream,
)

__all__ = [
    "ErrorStrategy",
    "GroupStatus",
    "MapHandle",
    "MemberHandle",
    "MemberResult",
    "ParallelDisplayMode",
    "ParallelEventGroup",
    "ParallelExecutionManager",
    "ParallelGroupTracker",
    "ResultStream",
]
