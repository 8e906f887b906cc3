"""Booked lines as FOCUS needs them: token classes without overlap, cost in nano-dollars."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import NamedTuple

from meterline.schemas.money import NanoUsd

# Class name, meter, and the place of its price in PriceInput.
TOKEN_CLASSES = (
    ("input", "Input Tokens", 0),
    ("cache_read", "Cached Input Tokens", 2),
    ("cache_write", "Cache Write Tokens", 3),
    ("cache_write_1h", "Cache Write 1h Tokens", 4),
    ("input_audio", "Input Audio Tokens", 5),
    ("output", "Output Tokens", 1),
    ("output_audio", "Output Audio Tokens", 6),
)


class FocusLine(NamedTuple):
    """One booked line."""

    day: date
    organisation: str
    department: str
    project: str
    team: str
    environment: str
    key: str
    key_name: str
    model: str
    provider: str
    service_tier: str
    tier_floor: int
    price_version: str
    correction_reason: str
    tags: str
    kind: str
    origin_period: str
    events: int
    unpriced: int
    tokens: tuple[int, ...]
    """By TOKEN_CLASSES."""
    cost_nano_usd: NanoUsd


def classes(counts: Sequence[int]) -> tuple[int, ...]:
    """Inclusive counts, as read above, to classes without overlap, as TOKEN_CLASSES has them."""
    given, out, read, written, written_1h, audio_in, audio_out = counts
    uncached = given - read - written - written_1h
    # Audio beyond the uncached tokens is cached audio, as in rating.
    audio = min(audio_in, uncached) if audio_in >= 0 else max(audio_in, uncached)
    return (uncached - audio, read, written, written_1h, audio, out - audio_out, audio_out)
