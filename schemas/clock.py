"""The type of a clock: shells take one, decisions take the time itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Returns the current time in UTC milliseconds."""
