"""The errors of the ClickHouse client; needs no driver.

ClickHouseError
├── ClickHouseUnavailableError   try again later: away, overloaded, read-only replica, out of
│                                space
├── ClickHouseRefusedError       these rows or this SQL will never be accepted: write a dead
│                                letter or correct them
└── ClickHouseFatalError         no retry helps: access, a missing table or column; the message
says what to do
"""

from __future__ import annotations

from meterline.schemas.errors import MeterlineError


class ClickHouseError(MeterlineError):
    """Root of what the ClickHouse client raises; the message is one line, without secrets.

    `code` is ClickHouse's error code, 0 where there is none.
    """

    def __init__(self, message: str, code: int = 0) -> None:
        """Keep the code for callers that distinguish cases."""
        self.code = code
        super().__init__(message)


class ClickHouseUnavailableError(ClickHouseError):
    """Try again later."""


class ClickHouseRefusedError(ClickHouseError):
    """The same rows or the same SQL will be refused again."""


class ClickHouseFatalError(ClickHouseError):
    """Stop; the message says what the operator has to do."""
