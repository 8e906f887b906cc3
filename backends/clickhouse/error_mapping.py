"""Every error of clickhouse-connect and its transport as an error of this client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from clickhouse_connect.driver import exceptions as driver
from urllib3 import exceptions as transport

from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.clickhouse.errors import (
    ClickHouseError,
    ClickHouseFatalError,
    ClickHouseRefusedError,
    ClickHouseUnavailableError,
)

# A line in a log or on a terminal; the server sometimes quotes whole rows.
ERROR_TEXT_LENGTH_MAX = 400

# ClickHouse's numbers (src/Common/ErrorCodes.cpp).
UNAVAILABLE_CODES = frozenset(
    {
        3,  # UNEXPECTED_END_OF_FILE: the connection broke inside the request
        23, 24, 74, 75, 76, 87, 88,  # reading and writing streams and files
        95, 96, 99, 100, 101, 102,  # between servers: unknown or unexpected packets
        159,  # TIMEOUT_EXCEEDED
        160,  # TOO_SLOW
        173, 241,  # memory
        198,  # DNS_ERROR
        201,  # QUOTA_EXCEEDED
        202, 203, 204,  # too many queries, no free connection
        209, 210,  # socket, network
        225, 242, 244, 999,  # Keeper away, table read-only for now
        236, 394, 735,  # aborted, cancelled: the server is stopping
        243,  # NOT_ENOUGH_SPACE
        252,  # TOO_MANY_PARTS: merges lag behind
        279, 280, 285, 286, 289, 319, 519,  # replicas, quorum
        415, 416, 425, 439,  # no threads
        473,  # DEADLOCK_AVOIDED
        499,  # S3_ERROR
        667,  # NOT_INITIALIZED: still starting
        722, 745,  # still loading tables, overloaded
    }
)  # fmt: skip
_ACCESS_HELP = "check user, password and grants in the ClickHouse settings"
_SCHEMA_HELP = "run `meterline migrate`, and check the database name"
_VERSION_HELP = "this ClickHouse version lacks something Meterline needs; 25.8 or newer is meant"
_CLUSTER_HELP = "check the cluster's name in the ClickHouse settings"
STOP_CODES: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys((164, 192, 193, 194, 195, 291, 495, 497, 516), _ACCESS_HELP),
        **dict.fromkeys((8, 10, 16, 47, 60, 81, 82), _SCHEMA_HELP),
        **dict.fromkeys((46, 48, 50, 56, 63, 73, 115, 344), _VERSION_HELP),
        **dict.fromkeys((170, 189, 701), _CLUSTER_HELP),
    }
)
# Unavailable where only the HTTP status is known: the server or a proxy before it is busy.
_BUSY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_STATUS = re.compile(r"HTTP driver received HTTP status (\d{3})")
_VERSION_TRAILER = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)")


def client_error(error: BaseException, doing: str, config: ClickHouseConfig) -> ClickHouseError:
    """Map one error of the driver; the caller raises it `from` the original.

    Args:
        error: what the driver raised.
        doing: what was attempted, for the message.
        config: names the server; its password is cut out of the text.
    """
    code = int(getattr(error, "code", None) or 0)
    if code in STOP_CODES:
        return ClickHouseFatalError(f"{doing}: {_text(error, config)}; {STOP_CODES[code]}", code)
    if code in UNAVAILABLE_CODES:
        return ClickHouseUnavailableError(f"{doing}: {_text(error, config)}", code)
    if code:
        return ClickHouseRefusedError(f"{doing}: {_text(error, config)}", code)
    return _without_code(error, doing, config)


def _without_code(error: BaseException, doing: str, config: ClickHouseConfig) -> ClickHouseError:
    status = _STATUS.search(str(error))
    if status is not None and int(status[1]) not in _BUSY_STATUSES:
        what = f"{doing}: {config.address} answers HTTP {status[1]}"
        return ClickHouseFatalError(f"{what}; check host and port, this may be no ClickHouse")
    if isinstance(
        error,
        driver.OperationalError
        | driver.InternalError
        | driver.StreamClosedError
        | driver.StreamCompleteException
        | transport.HTTPError
        | OSError,
    ):
        what = f"{doing}: no answer from ClickHouse at {config.address}"
        advice = "start it, or correct host and port"
        return ClickHouseUnavailableError(f"{what} ({_cause(error)}); {advice}")
    if status is not None:
        return ClickHouseUnavailableError(f"{doing}: {config.address} answers HTTP {status[1]}")
    if isinstance(error, driver.NotSupportedError):
        return ClickHouseFatalError(f"{doing}: {_text(error, config)}; {_VERSION_HELP}")
    return ClickHouseRefusedError(f"{doing}: {_text(error, config)}")


def _text(error: BaseException, config: ClickHouseConfig) -> str:
    text = " ".join(str(error).split())
    text = _VERSION_TRAILER.sub("", text).replace(f" (for url {config.address})", "")
    if config.password:
        text = text.replace(config.password, "***")
    return text[:ERROR_TEXT_LENGTH_MAX] or type(error).__name__


def _cause(error: BaseException) -> str:
    """The innermost reason: the outer texts repeat the address and object names."""
    inner = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return type(inner).__name__ if inner is not error else type(error).__name__
