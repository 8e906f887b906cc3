"""Events with what they are charged now: their frozen cost, or what a re-rating made of it."""

from __future__ import annotations

from meterline.reports.core.query import between

CHARGED_EVENTS = f"""
(
    SELECT e.* EXCEPT (priced, cost_usd), e.cost_usd AS frozen_usd, e.priced AS frozen_priced,
           a.adjusted = 1 AS is_adjusted,
           if(is_adjusted, a.charged_usd, e.cost_usd) AS cost_usd, e.priced OR is_adjusted AS priced
    FROM (
        SELECT *, toDate(event_time) AS event_day FROM usage_events FINAL WHERE {between("event_time")}
    ) AS e
    GLOBAL LEFT JOIN (
        SELECT organisation, department, toDate(event_time) AS event_day, key, event_id,
               charged_usd, toUInt8(1) AS adjusted
        FROM price_adjustments FINAL WHERE {between("event_time")}
    ) AS a USING (organisation, department, event_day, key, event_id)
)"""  # noqa: S608 - fixed text
"""Used in place of a table; `cost_usd` and `priced` are the current ones."""
