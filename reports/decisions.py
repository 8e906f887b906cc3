"""Stored decisions about scopes up to a time: throttle commands, alerts and policy objects.

All functions raise ClickHouseError where the store fails or refuses a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client

# Renewals of one lease repeat every few minutes: this many reach back over two days of them.
COMMANDS_MAX = 1_000
ALERTS_MAX = 20


class StoredCommand(NamedTuple):
    """One throttle command; times in UTC ms."""

    scope: str
    state: str
    reason: str
    reason_code: str
    evidence: str
    """JSON; empty for a release or a manual override."""
    issued_at_ms: int
    expires_at_ms: int
    reset_at_ms: int
    version: str


class StoredAlert(NamedTuple):
    """One alert record."""

    scope: str
    status: str
    severity: str
    rule_id: str
    summary: str
    starts_at_ms: int
    ends_at_ms: int


_COMMANDS = """
SELECT scope, state, reason, reason_code, evidence, toUnixTimestamp64Milli(issued_at),
       toUnixTimestamp64Milli(expires_at), toUnixTimestamp64Milli(reset_at),
       concat(toString(epoch), '.', toString(seq))
FROM throttle_commands FINAL
WHERE scope = {scope:String} AND issued_at <= fromUnixTimestamp64Milli({at_ms:Int64}, 'UTC')
ORDER BY epoch DESC, seq DESC
LIMIT {count:UInt32}"""
_ALERTS = """
SELECT scope, status, severity, rule_id, summary, toUnixTimestamp64Milli(starts_at),
       toUnixTimestamp64Milli(ends_at)
FROM alerts FINAL
WHERE scope IN {scopes:Array(String)}
  AND greatest(starts_at, ends_at) <= fromUnixTimestamp64Milli({at_ms:Int64}, 'UTC')
ORDER BY greatest(starts_at, ends_at) DESC, alert_id
LIMIT {count:UInt32}"""
_OBJECTS = """
SELECT object_id, argMax(after, (at, version))
FROM audit_log FINAL
WHERE object_id IN {object_ids:Array(String)}
  AND at <= fromUnixTimestamp64Milli({at_ms:Int64}, 'UTC')
GROUP BY object_id"""


def read_commands(client: Client, scope: str, at_ms: int) -> list[StoredCommand]:
    """A scope's commands up to a time, the newest first."""
    parameters = {"scope": scope, "at_ms": at_ms, "count": COMMANDS_MAX}
    return [StoredCommand(*row) for row in client.query(_COMMANDS, parameters)]


def read_alerts(client: Client, scopes: Sequence[str], at_ms: int) -> list[StoredAlert]:
    """The newest alert records of some scopes up to a time."""
    parameters = {"scopes": list(scopes), "at_ms": at_ms, "count": ALERTS_MAX}
    return [StoredAlert(*row) for row in client.query(_ALERTS, parameters)]


def read_objects(client: Client, object_ids: Sequence[str], at_ms: int) -> dict[str, str]:
    """Policy objects as they were at a time, as JSON by id.

    From the audit log, which has every change; what did not exist, or was deleted, is left out.
    """
    parameters = {"object_ids": list(object_ids), "at_ms": at_ms}
    return {str(name): str(after) for name, after in client.query(_OBJECTS, parameters) if after}
