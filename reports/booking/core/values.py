"""What booked lines are made of: kinds, runs and sums of lines."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from meterline.schemas.money import NanoUsd


class LineKind(StrEnum):
    """Why a line was booked."""

    USAGE = "usage"
    """Usage of the month, in its first close."""
    LATE = "late"
    """Of an earlier month: came, or was corrected, after its close."""
    RESTATEMENT = "restatement"
    """Of the month itself, in a revision."""
    RERATE = "rerate"
    """Difference between what a re-rating charges and the prices frozen on the events."""


class CloseRun(NamedTuple):
    """Whose lines are written."""

    run: int
    booked_period: str
    draft: bool


class SumRow(NamedTuple):
    """Booked money and usage of one department's project and model, by why it was booked."""

    run: int
    organisation: str
    department: str
    project: str
    model: str
    kind: LineKind
    origin_period: str
    requests: int
    unpriced: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: NanoUsd


class DayRow(NamedTuple):
    """What a department used on one day of its month."""

    organisation: str
    department: str
    day: str
    cost_nano_usd: NanoUsd
