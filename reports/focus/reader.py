"""Booked lines as FOCUS needs them: token classes without overlap, cost in nano-dollars."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from meterline.backends.clickhouse.client import Client
from meterline.reports.booking.core.months import day_start_ms
from meterline.reports.focus.core.focus_lines import FocusLine, classes
from meterline.reports.focus.core.prices import PricedModel
from meterline.schemas.periods import DAY_MS


def read_lines(client: Client, run: int, organisation: str, day: date) -> Iterator[FocusLine]:
    """The lines of one organisation and day, always in the same order."""
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
        yield FocusLine._make((day, organisation, *row[:17], classes(row[17:24]), row[24]))


def read_line_days(client: Client, run: int) -> list[tuple[str, date]]:
    """Organisations and days that a run has lines of."""
    rows = client.query(
        "SELECT DISTINCT organisation, day FROM closed_lines WHERE run = {run:UInt64} "
        "ORDER BY organisation, day",
        {"run": run},
    )
    return [(row[0], row[1]) for row in rows]


def read_models(client: Client, run: int, time_zone: str) -> list[PricedModel]:
    """The models of a run, with the days on which they were used."""
    rows = client.query(
        """
SELECT provider, model, service_tier, tier_floor, min(day), max(day)
FROM closed_lines WHERE run = {run:UInt64}
GROUP BY provider, model, service_tier, tier_floor
ORDER BY provider, model, service_tier, tier_floor""",
        {"run": run},
    )
    return [
        PricedModel._make(
            (*row[:4], day_start_ms(row[4], time_zone), day_start_ms(row[5], time_zone) + DAY_MS)
        )
        for row in rows
    ]
