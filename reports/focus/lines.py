"""Booked lines as FOCUS needs them: token classes without overlap, cost in nano-dollars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
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


class Line(NamedTuple):
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


def read_lines(client: Client, run: int, organisation: str, day: date) -> Iterator[Line]:
    """The lines of one organisation and day, in one order for ever."""
    rows = client.query(
        """
SELECT department, project, team, environment, key, key_name, model, provider, service_tier,
       tier_floor, price_version, correction_reason, tags, kind, origin_period, events,
       unpriced_events, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
       cache_write_1h_tokens, input_audio_tokens, output_audio_tokens,
       toInt128(cost_usd * 1000000000)
FROM closed_lines
WHERE run = {run:UInt64} AND organisation = {organisation:String} AND day = {day:Date}
ORDER BY department, key, model, kind, origin_period, project, team, environment, provider,
         service_tier, tier_floor, price_version, correction_reason, tags""",
        {"run": run, "organisation": organisation, "day": day},
    )
    for row in rows:
        yield Line._make((day, organisation, *row[:17], classes(row[17:24]), row[24]))


def read_line_days(client: Client, run: int) -> list[tuple[str, date]]:
    """Organisations and days that a run has lines of."""
    rows = client.query(
        "SELECT DISTINCT organisation, day FROM closed_lines WHERE run = {run:UInt64} "
        "ORDER BY organisation, day",
        {"run": run},
    )
    return [(row[0], row[1]) for row in rows]


def classes(counts: Sequence[int]) -> tuple[int, ...]:
    """Inclusive counts, as read above, to classes without overlap, as TOKEN_CLASSES has them."""
    given, out, read, written, written_1h, audio_in, audio_out = counts
    uncached = given - read - written - written_1h
    # Audio beyond the uncached tokens is cached audio, as in rating.
    audio = min(audio_in, uncached) if audio_in >= 0 else max(audio_in, uncached)
    return (uncached - audio, read, written, written_1h, audio, out - audio_out, audio_out)
