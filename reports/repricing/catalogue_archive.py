"""Catalogues that were in use, archived in ClickHouse so that usage can be priced by them later.

UnknownVersionError    no catalogue of that version is archived, or the version is ambiguous
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.pricing.catalogue import Catalogue, build_catalogue
from meterline.schemas.errors import MeterlineError
from meterline.schemas.tables import PRICE_CATALOGUES

_COLUMNS = [InsertColumn(*column) for column in PRICE_CATALOGUES.columns]


class UnknownVersionError(MeterlineError):
    """The message names the versions that are known."""


class ArchivedCatalogue(NamedTuple):
    """A version and since when it was used."""

    version: str
    used_since_ms: int


def archive_catalogue(client: Client, files: Sequence[tuple[str, bytes]], now_ms: int) -> bool:
    """Archive a catalogue's files unless they are archived; returns whether they were written.

    Raises:
        CatalogueError: the files are no catalogue.
        ClickHouseError: the store failed or refused the statement.
    """
    version = build_catalogue(files).version
    if any(each.version == version for each in read_versions(client)):
        return False
    at = datetime.fromtimestamp(now_ms / 1000, UTC)
    rows = [
        (version, number, name, content.decode(), at)
        for number, (name, content) in enumerate(files)
    ]
    client.insert(PRICE_CATALOGUES.name, _COLUMNS, [list(each) for each in zip(*rows, strict=True)])
    return True


def read_versions(client: Client) -> list[ArchivedCatalogue]:
    """The archived versions, the first used first.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    rows = client.query(
        "SELECT version, toUnixTimestamp64Milli(min(used_since)) AS since FROM price_catalogues "
        "GROUP BY version ORDER BY since, version"
    )
    return [ArchivedCatalogue(*row) for row in rows]


def read_catalogue(client: Client, named: str) -> Catalogue:
    """An archived catalogue by its version, `2026-11+75751b08`, or by the part before the hash.

    Raises:
        UnknownVersionError: no version matches, or several do.
        ClickHouseError: the store failed or refused the statement.
    """
    versions = [each.version for each in read_versions(client)]
    exact = [each for each in versions if each == named]
    found = exact or [each for each in versions if each.rpartition("+")[0] == named]
    if len(found) != 1:
        known = ", ".join(found or versions) or "none"
        why = "may be any of" if found else "is neither a rate card file nor a version in use:"
        message = f"{named!r} {why} {known}"
        raise UnknownVersionError(message)
    rows = client.query(
        "SELECT file_name, content FROM price_catalogues FINAL WHERE version = {version:String} "
        "ORDER BY number",
        {"version": found[0]},
    )
    catalogue = build_catalogue((name, content.encode()) for name, content in rows)
    if catalogue.version != found[0]:
        # The version has a hash of the content: other prices are another catalogue.
        message = (
            f"the archived files of {found[0]} do not match its hash: they make {catalogue.version}"
        )
        raise UnknownVersionError(message)
    return catalogue
