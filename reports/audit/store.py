"""The chain, erasure and retention in ClickHouse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta
from enum import StrEnum
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.reports.audit.core.chain import AuditAction, ChainLink, extend
from meterline.schemas.tables import AUDIT_CHAIN

_EPOCH = date(1970, 1, 1)
# Links of one insert: 20 MB.
LINKS_PER_INSERT = 50_000
_COLUMNS = [InsertColumn(*column) for column in AUDIT_CHAIN.columns]


def read_actions(client: Client, after_version: int = 0) -> Iterator[AuditAction]:
    """The audit log by version, once per entry; streamed.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    sql = (
        "SELECT version, id, toUnixTimestamp64Milli(at), actor, action, object_id, reason, before, "
        "after FROM audit_log FINAL WHERE version > {after:UInt64} ORDER BY version"
    )
    for block in client.blocks(sql, {"after": after_version}):
        for row in zip(*block, strict=True):
            yield AuditAction(*row)


def read_links(client: Client) -> Iterator[ChainLink]:
    """The chain by number; streamed.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    sql = (
        "SELECT seq, version, id, toInt64(day), toString(row_hash), toString(hash) "
        "FROM audit_chain FINAL ORDER BY seq"
    )
    for block in client.blocks(sql):
        for row in zip(*block, strict=True):
            yield ChainLink(*row)


def seal(client: Client) -> int:
    """Append the links of actions that have none yet; returns their number.

    The order is that of the log, so sealing twice, or twice at once, writes the same rows.

    Raises:
        ClickHouseError: the store failed or refused; what was written stays, the next call
            seals the rest.
    """
    rows = client.query(
        "SELECT seq, version, id, toInt64(day), toString(row_hash), toString(hash) "
        "FROM audit_chain FINAL ORDER BY seq DESC LIMIT 1"
    )
    head = ChainLink(*rows[0]) if rows else None
    waiting: list[ChainLink] = []
    sealed = 0
    for link in extend(head, read_actions(client, head.version if head else 0)):
        waiting.append(link)
        if len(waiting) == LINKS_PER_INSERT:
            sealed += _insert(client, waiting)
            waiting = []
    return sealed + _insert(client, waiting)


def _insert(client: Client, links: list[ChainLink]) -> int:
    if links:
        rows = [
            (each.seq, each.version, each.id, _EPOCH + timedelta(days=each.day), *each[4:])
            for each in links
        ]
        client.insert(AUDIT_CHAIN.name, _COLUMNS, list(zip(*rows, strict=True)))
    return len(links)


class Erased(NamedTuple):
    """Number of rows that an erasure removed or cleared."""

    persons: int
    """Rows of persons."""
    letters: int
    """Dead letters whose original bytes were cleared."""


_IS_SUBJECT = (
    "organisation = {organisation:String} AND (user_email = {subject:String} "
    "OR user = {subject:String} OR client_ip = {subject:String})"
)
_NAMES_SUBJECT = "original != '' AND position(original, {subject:String}) > 0"


def erase(client: Client, organisation: str, subject: str, cluster: str = "") -> Erased:
    """Delete a subject's personal data; returns when it has been removed from the disk.

    Events keep a number without a referent, so totals and chains stay. Dead letters lose their
    original bytes where these name the subject; their reason, place and event id stay.

    Args:
        client: the store, as a user that may ALTER.
        organisation: whose user the subject is.
        subject: an e-mail, user id or address, exactly as relays send it.
        cluster: name of the cluster; empty on a single server.

    Raises:
        ClickHouseError: the store failed or refused; erasing again completes it.
    """
    suffix, on_cluster = ("_local", f" ON CLUSTER '{cluster}'") if cluster else ("", "")
    parameters: dict[str, object] = {"organisation": organisation, "subject": subject}
    [(persons,)] = client.query(
        f"SELECT count() FROM persons FINAL WHERE {_IS_SUBJECT}",  # noqa: S608 - fixed text; values are bound
        parameters,
    )
    [(letters,)] = client.query(
        f"SELECT count() FROM dead_letters FINAL WHERE {_NAMES_SUBJECT}",  # noqa: S608 - fixed text; values are bound
        parameters,
    )
    client.command(
        f"ALTER TABLE persons{suffix}{on_cluster} DELETE WHERE {_IS_SUBJECT} "
        "SETTINGS mutations_sync = 2",
        parameters,
    )
    client.command(
        f"ALTER TABLE dead_letters{suffix}{on_cluster} UPDATE original = '' "
        f"WHERE {_NAMES_SUBJECT} SETTINGS mutations_sync = 2",
        parameters,
    )
    return Erased(persons, letters)


class DataClass(StrEnum):
    """Data with a retention of its own."""

    EVENTS = "events"
    PERSONAL = "personal"
    REJECTED = "rejected"


_TABLES = {
    DataClass.EVENTS: ("usage_events", "event_time"),
    DataClass.PERSONAL: ("persons", "seen"),
    DataClass.REJECTED: ("dead_letters", "source_time"),
}
# Administrative actions, their chain and closed periods have no class: they are kept indefinitely.


def set_retention(client: Client, kind: DataClass, days: int, cluster: str = "") -> None:
    """Set the TTL of a class of data in days after its time; 0 keeps it indefinitely.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    table, column = _TABLES[kind]
    suffix, on_cluster = ("_local", f" ON CLUSTER '{cluster}'") if cluster else ("", "")
    what = f"MODIFY TTL toDateTime({column}) + toIntervalDay({int(days)})" if days else "REMOVE TTL"
    if days or read_retention(client)[kind]:
        client.command(f"ALTER TABLE {table}{suffix}{on_cluster} {what}")


def read_retention(client: Client, cluster: str = "") -> dict[DataClass, int | None]:
    """The TTL of each class in days, as ClickHouse has it; None without one.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    suffix = "_local" if cluster else ""
    rows = dict(
        client.query(
            "SELECT name, toUInt32OrZero(extract(engine_full, 'TTL .+?toIntervalDay\\((\\d+)\\)')) "
            "FROM system.tables WHERE database = currentDatabase()"
        )
    )
    return {kind: rows.get(table + suffix) or None for kind, (table, _) in _TABLES.items()}
