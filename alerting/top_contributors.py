"""Top contributors to a deviation or a burn rate: key and model, queried when an alert fires.

Totals are kept per scope, not per model: keeping them per key and model would multiply the state
of streams by the models in use, for a query that is made a few times a day. The stored events
know, and one query answers for keys and models together:

    spent   in the alert's window so far
    usual   in the same part of each of the seven days before, on average
The store is behind the totals by the sink's delay (about a second): shares are as of then, the
alert's own amounts are not touched. Without an answer within STORE_SECONDS_MAX the alert goes out
and says so; a throttle command has gone out before anyhow.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.errors import ClickHouseError
from meterline.schemas.alert import Alert, AlertStatus, TopContributor
from meterline.schemas.money import divide_half_even, nano_from_usd
from meterline.schemas.periods import HOUR_MS
from meterline.schemas.scopes import ScopeError, ScopeType, parse_scope

CONTRIBUTORS_MAX = 3
DAYS = 7
# The last answer to "how many alerts at once are worth a query each"; the others say so.
ALERTS_EXPLAINED_MAX = 5
# One hundred million rows are read in tens of milliseconds; an alert is due within two seconds.
STORE_SECONDS_MAX = 1

_COLUMNS = {
    ScopeType.ORGANISATION: "",
    ScopeType.DEPARTMENT: "department",
    ScopeType.PROJECT: "project",
    ScopeType.USER: "user",
    ScopeType.KEY: "key",
}
_DAY_MS = 24 * HOUR_MS
_UNKNOWN = "not known"


class ContributorStore(Protocol):
    """What alerting asks of the stored events."""

    def contributors(self, scope: str, start_ms: int, end_ms: int) -> tuple[TopContributor, ...]:
        """Keys and models of a scope, the greatest excess first."""


class ClickHouseStore:
    """The stored events."""

    def __init__(self, client: Client) -> None:
        """Take the client, which this then owns."""
        self._client = client
        # A client waits and tries again for longer than the loop may stand still.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="drivers")
        self._asking: Future[tuple[TopContributor, ...]] | None = None

    def contributors(self, scope: str, start_ms: int, end_ms: int) -> tuple[TopContributor, ...]:
        """Keys and models of a scope, the greatest excess first.

        Raises:
            ClickHouseError: it was refused.
            TimeoutError: no answer within STORE_SECONDS_MAX, or the one before is still awaited.
        """
        if self._asking is not None and not self._asking.done():
            raise TimeoutError
        self._asking = self._thread.submit(self._contributors, scope, start_ms, end_ms)
        return self._asking.result(STORE_SECONDS_MAX)

    def close(self) -> None:
        """Let go, without waiting for an answer."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _contributors(self, scope: str, start_ms: int, end_ms: int) -> tuple[TopContributor, ...]:
        kind, organisation, identifier = parse_scope(scope)
        column = _COLUMNS[kind]
        where = f"AND `{column}` = {{identifier:String}}" if column else ""
        sql = f"""
SELECT key, model,
       sumIf(cost_usd, event_time >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')),
       sumIf(cost_usd, event_time < fromUnixTimestamp64Milli({{start:Int64}}, 'UTC'))
FROM usage_events FINAL
WHERE organisation = {{organisation:String}} {where}
  AND event_time >= fromUnixTimestamp64Milli({{first:Int64}}, 'UTC')
  AND event_time < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC')
  AND (toUnixTimestamp64Milli(event_time) - {{first:Int64}}) % {_DAY_MS} < {{length:Int64}}
GROUP BY key, model"""  # noqa: S608 - a column of a closed list; values are bound
        rows = self._client.query(
            sql,
            {
                "organisation": organisation,
                "identifier": identifier,
                "start": start_ms,
                "first": start_ms - DAYS * _DAY_MS,
                "end": end_ms,
                "length": end_ms - start_ms,
            },
        )
        found = [
            TopContributor(
                key=str(key),
                model=str(model),
                spent_nano_usd=nano_from_usd(spent),
                usual_nano_usd=divide_half_even(nano_from_usd(before), DAYS),
            )
            for key, model, spent, before in rows
        ]
        found.sort(key=lambda each: (-each.excess_nano_usd, each.key, each.model))
        return tuple(each for each in found if each.excess_nano_usd > 0)[:CONTRIBUTORS_MAX]


def explained(alerts: Iterable[Alert], store: ContributorStore | None) -> list[Alert]:
    """The alerts; those that have just fired with their top contributors."""
    queries = 0
    answer = []
    for alert in alerts:
        if _has_contributors(alert):
            queries += 1
            one = _explain(alert, store if queries <= ALERTS_EXPLAINED_MAX else None)
            if one.explanation is not None and one.explanation.drivers_note.startswith(_UNKNOWN):
                store = None  # it does not answer: the other alerts of this round do not wait
            answer.append(one)
        else:
            answer.append(alert)
    return answer


def _has_contributors(alert: Alert) -> bool:
    fresh = alert.status is AlertStatus.FIRING and not alert.reminder
    return fresh and alert.explanation is not None


def _explain(alert: Alert, store: ContributorStore | None) -> Alert:
    explanation = alert.explanation
    assert explanation is not None
    drivers: tuple[TopContributor, ...] = ()
    note = "not asked: no store, or too many alerts at once"
    if store is not None:
        # The window began a day, or an hour, before it ends; a burn rate looks at its last hour.
        end_ms = alert.starts_at_ms + 1
        start_ms = end_ms - HOUR_MS
        if alert.window == "day" and explanation.samples:
            start_ms = min(start_ms, alert.reset_at_ms - _DAY_MS)
        try:
            drivers = store.contributors(alert.scope, start_ms, end_ms)
            note = "" if drivers else "nothing stored yet is above the usual"
        except (ClickHouseError, ScopeError, TimeoutError) as error:
            note = f"{_UNKNOWN}: {str(error) or 'no answer in time'}"
    update: dict[str, object] = {
        "explanation": explanation.model_copy(update={"drivers": drivers, "drivers_note": note})
    }
    if drivers:
        first = drivers[0]
        update["summary"] = f"{alert.summary}; most by key {first.key} on {first.model}"
    return alert.model_copy(update=update)
