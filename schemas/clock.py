"""The type of a clock: shells are given one, decisions are given its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Answers the present time in UTC milliseconds."""
