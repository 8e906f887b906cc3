"""Numbered SQL, applied once and recorded; the same files for one server and for a cluster.

The files are templates with four placeholders:

    {local:NAME}             NAME, or NAME_local on a cluster: the table that holds data
    {on_cluster}             nothing, or ON CLUSTER 'name'
    {replacing:ARGUMENTS}    ReplacingMergeTree(ARGUMENTS), or ReplicatedReplacingMergeTree with its
                             Keeper path and replica name from the server's macros
    {distributed:NAME:KEY}   nothing, or the Distributed table NAME over NAME_local, sharded by KEY;
                             KEY is made of sorting columns, so that rows that replace each other
                             meet on one shard

A comment has its own line, a statement ends with a semicolon at the end of a line.

An applied file must not be edited: its checksum is recorded, and another one is refused. Every
statement may run twice, because a crash can come between a statement and its record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.schemas.errors import MeterlineError
from meterline.schemas.tables import TableName

_FILE_NAME = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")
_PLACEHOLDER = re.compile(
    r"\{(local|on_cluster|replacing|distributed)(?::([^:}]+))?(?::([^}]+))?\}"
)
_CLUSTER_NAME = re.compile(r"^[A-Za-z0-9_-]{1,62}$")
# Whole lines only, and ends of lines only: both may occur inside a quoted column comment.
_COMMENT = re.compile(r"^\s*--.*$", re.MULTILINE)
_END = re.compile(r";\s*$", re.MULTILINE)


class MigrationError(MeterlineError):
    """The tables cannot be migrated; the message names the remedy."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """A cluster: its tables are Replicated and Distributed."""

    name: str
    keeper_path: str = "/clickhouse/tables/{shard}/{database}/{table}"
    """With the server's macros."""
    replica: str = "{replica}"

    def __post_init__(self) -> None:
        """Refuse what cannot stand in a statement.

        Raises:
            MigrationError: the name is no cluster's name, or a quote is in a path.
        """
        if not _CLUSTER_NAME.match(self.name) or "'" in self.keeper_path + self.replica:
            message = f"{self.name!r} cannot be a cluster: letters, digits, '_' and '-' only"
            raise MigrationError(message)


class Migration(NamedTuple):
    """One file."""

    number: int
    name: str
    template: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the template: the same on one server and on a cluster."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def statements(self, cluster: ClusterOptions | None) -> list[str]:
        """The SQL to run, in order."""
        expanded = expand(_COMMENT.sub("", self.template), cluster)
        return [part.strip() for part in _END.split(expanded) if part.strip()]


def expand(template: str, cluster: ClusterOptions | None) -> str:
    """Put tables, engines and cluster into a template."""

    def replace(found: re.Match[str]) -> str:
        kind, first, second = found[1], found[2] or "", found[3] or ""
        if cluster is None:
            return {
                "local": first,
                "on_cluster": "",
                "replacing": f"ReplacingMergeTree({first})",
                "distributed": "",
            }[kind]
        return {
            "local": f"{first}_local",
            "on_cluster": f"ON CLUSTER '{cluster.name}'",
            "replacing": (
                f"ReplicatedReplacingMergeTree('{cluster.keeper_path}', '{cluster.replica}', "
                f"{first})"
            ),
            "distributed": (
                f"CREATE TABLE IF NOT EXISTS {first} ON CLUSTER '{cluster.name}' "
                f"AS {first}_local ENGINE = Distributed('{cluster.name}', currentDatabase(), "
                f"{first}_local, {second});"
            ),
        }[kind]

    return _PLACEHOLDER.sub(replace, template)


def shipped() -> list[Migration]:
    """The migrations of this version, in order."""
    found = []
    for entry in resources.files("meterline.sinks.migrations").iterdir():
        name = _FILE_NAME.match(entry.name)
        if name is not None:
            found.append(Migration(int(name[1]), entry.name, entry.read_text(encoding="utf-8")))
    found.sort()
    # Gaps are fine: numbers are assigned before the files are written, and a file that is added
    # later is applied later. Two files of one number would hide each other in the record.
    if not found or len({migration.number for migration in found}) != len(found):
        message = "migrations are missing or numbered twice: the installation is damaged"
        raise MigrationError(message)
    return found


_RECORD = """
CREATE TABLE IF NOT EXISTS {local:schema_migrations} {on_cluster}
(
    number UInt32 COMMENT 'Number of the file',
    name String COMMENT 'Name of the file',
    checksum String COMMENT 'SHA-256 of the file',
    cluster String COMMENT 'Cluster it was applied to; empty for a single server',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When'
)
ENGINE = {replacing:applied_at}
-- One row per file, kept indefinitely.
ORDER BY number
COMMENT 'Applied migrations';
{distributed:schema_migrations:number}
"""
_RECORD_COLUMNS = (
    InsertColumn("number", "UInt32"),
    InsertColumn("name", "String"),
    InsertColumn("checksum", "String"),
    InsertColumn("cluster", "String"),
)


def migrate(
    client: Client,
    *,
    cluster: ClusterOptions | None = None,
    migrations: Sequence[Migration] | None = None,
) -> list[str]:
    """Apply the missing migrations.

    Args:
        client: the server; on a cluster any of its nodes.
        cluster: None for a single server.
        migrations: other files than the shipped ones.

    Returns:
        The names of the files applied.

    Raises:
        MigrationError: an applied file was edited, or is newer than this installation.
        ClickHouseError: the server is unavailable, or refuses a statement.
    """
    wanted = list(shipped() if migrations is None else migrations)
    # 1. The record exists. Safe to repeat.
    for statement in Migration(0, "record", _RECORD).statements(cluster):
        client.command(statement)
    applied = _applied(client)
    name_of_cluster = cluster.name if cluster else ""
    check_history(wanted, applied, name_of_cluster)
    done = []
    for migration in wanted:
        if migration.number in applied:
            continue
        # 2. Its statements; each may run twice, so a crash here is repaired by the next run.
        for statement in migration.statements(cluster):
            client.command(statement)
        # 3. Only now is it recorded.
        row = (migration.number, migration.name, migration.checksum, name_of_cluster)
        client.insert(TableName.SCHEMA_MIGRATIONS, _RECORD_COLUMNS, [[value] for value in row])
        done.append(migration.name)
    return done


class AppliedMigration(NamedTuple):
    """One recorded migration."""

    name: str
    checksum: str
    cluster: str


def check_history(
    wanted: Sequence[Migration], applied: dict[int, AppliedMigration], cluster: str
) -> None:
    """Refuse a history that is not the one of this installation.

    Raises:
        MigrationError: an applied migration is unknown, was edited, or is another cluster's.
    """
    known = {migration.number: migration for migration in wanted}
    for number, record in sorted(applied.items()):
        if number not in known:
            message = (
                f"the database has migration {record.name}, which this version does not know: "
                f"install a newer version of Meterline"
            )
            raise MigrationError(message)
        if known[number].checksum != record.checksum:
            message = (
                f"migration {record.name} was edited after it had been applied: restore the file "
                f"and put the change into a new one"
            )
            raise MigrationError(message)
        if record.cluster != cluster:
            message = (
                f"the tables were made for {_named(record.cluster)}, the settings say "
                f"{_named(cluster)}: correct the cluster setting, or use another database"
            )
            raise MigrationError(message)


def _named(cluster: str) -> str:
    return f"cluster {cluster!r}" if cluster else "a single server"


def _applied(client: Client) -> dict[int, AppliedMigration]:
    rows = client.query("SELECT number, name, checksum, cluster FROM schema_migrations FINAL")
    return {row[0]: AppliedMigration(*row[1:]) for row in rows}
