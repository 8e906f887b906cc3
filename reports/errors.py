"""The scheduler's error, apart from the scheduler: whoever only tells of it need not load one."""

from __future__ import annotations

from meterline.schemas.errors import MeterlineError


class SchedulerError(MeterlineError):
    """Another scheduler works with this store."""
