"""The scheduler's error, apart from the scheduler: whoever only tells of it need not load one."""

from __future__ import annotations


class SchedulerError(Exception):
    """Another scheduler works with this store."""
