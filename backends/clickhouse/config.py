"""How to reach a ClickHouse server, and the column of an insert; needs no driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# The largest report takes seconds; a statement that takes longer is cancelled on the server.
STATEMENT_SECONDS_MAX = 120


@dataclass(frozen=True, slots=True)
class ClickHouseConfig:
    """The server, and the user that connects to it."""

    host: str = "127.0.0.1"
    port: int = 8123
    database: str = "default"
    user: str = "default"
    password: str = field(default="", repr=False)
    secure: bool = False
    """HTTPS, with the certificate checked."""
    statement_seconds_max: int = STATEMENT_SECONDS_MAX
    compress: bool = False
    """LZ4 on the wire: worth it across a network, a waste on one machine."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More ClickHouse settings for every statement, such as insert_quorum on a cluster."""

    @property
    def address(self) -> str:
        """What messages call the server."""
        return f"{'https' if self.secure else 'http'}://{self.host}:{self.port}"


class InsertColumn(NamedTuple):
    """Name and ClickHouse type of a column to insert into."""

    name: str
    type: str
