"""Every error of clickhouse-connect has its place in the client's tree."""

import inspect
import struct

import pytest
from clickhouse_connect.driver import exceptions as driver
from urllib3 import exceptions as transport

from meterline.backends.clickhouse.config import ClickHouseConfig
from meterline.backends.clickhouse.error_mapping import STOP_CODES, UNAVAILABLE_CODES, client_error
from meterline.backends.clickhouse.errors import (
    ClickHouseError,
    ClickHouseFatalError,
    ClickHouseRefusedError,
    ClickHouseUnavailableError,
)

CONFIG = ClickHouseConfig(host="ch.test", port=8123, password="s3cret-word")


def mapped(error: BaseException) -> ClickHouseError:
    return client_error(error, "inserting into t", CONFIG)


def made(kind: type[BaseException]) -> BaseException:
    takes_text = kind is not driver.StreamClosedError
    return kind("text") if takes_text else kind()


WITHOUT_CODE: dict[type[BaseException], type[ClickHouseError]] = {
    driver.ClickHouseError: ClickHouseRefusedError,
    driver.Warning: ClickHouseRefusedError,
    driver.Error: ClickHouseRefusedError,
    driver.InterfaceError: ClickHouseRefusedError,
    driver.DatabaseError: ClickHouseRefusedError,
    driver.DataError: ClickHouseRefusedError,
    driver.OperationalError: ClickHouseUnavailableError,
    driver.IntegrityError: ClickHouseRefusedError,
    driver.InternalError: ClickHouseUnavailableError,
    driver.ProgrammingError: ClickHouseRefusedError,
    driver.NotSupportedError: ClickHouseFatalError,
    driver.StreamClosedError: ClickHouseUnavailableError,
    driver.StreamCompleteException: ClickHouseUnavailableError,
    driver.StreamFailureError: ClickHouseUnavailableError,
}


def test_no_class_of_the_driver_is_forgotten() -> None:
    """A class that a new version of the driver adds makes this test fail until it is placed."""
    classes = {
        each
        for _, each in inspect.getmembers(driver, inspect.isclass)
        if issubclass(each, BaseException) and each.__module__ == driver.__name__
    }
    assert classes == WITHOUT_CODE.keys()


@pytest.mark.parametrize(("kind", "expected"), list(WITHOUT_CODE.items()))
def test_class_without_code(kind: type[BaseException], expected: type[ClickHouseError]) -> None:
    """Where no error code came, the driver's class decides."""
    assert type(mapped(made(kind))) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (transport.HTTPError("broken"), ClickHouseUnavailableError),
        (ConnectionRefusedError("no"), ClickHouseUnavailableError),
        (TimeoutError("late"), ClickHouseUnavailableError),
        (struct.error("range"), ClickHouseRefusedError),
        (OverflowError("too large"), ClickHouseRefusedError),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate"), ClickHouseRefusedError),
        (AttributeError("'int' has no attribute 'encode'"), ClickHouseRefusedError),
        (TypeError("None"), ClickHouseRefusedError),
        (KeyError("k"), ClickHouseRefusedError),
    ],
)
def test_other_errors(error: BaseException, expected: type[ClickHouseError]) -> None:
    """Broken connections are retried; values that do not fit their column are refused."""
    assert type(mapped(error)) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, ClickHouseUnavailableError) for code in sorted(UNAVAILABLE_CODES)),
        *((code, ClickHouseFatalError) for code in sorted(STOP_CODES)),
        (27, ClickHouseRefusedError),  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        (53, ClickHouseRefusedError),  # TYPE_MISMATCH
        (62, ClickHouseRefusedError),  # SYNTAX_ERROR
        (131, ClickHouseRefusedError),  # TOO_LARGE_STRING_SIZE
        (9_999, ClickHouseRefusedError),  # a code of a newer server
    ],
)
def test_code_decides(code: int, expected: type[ClickHouseError]) -> None:
    """ClickHouse's code decides, whatever class the driver chose, and is kept."""
    error = mapped(driver.OperationalError("text", code=code))
    assert (type(error), error.code) == (expected, code)


def test_no_code_is_in_two_lists() -> None:
    """A code means one thing to the caller."""
    assert not UNAVAILABLE_CODES & STOP_CODES.keys()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, ClickHouseFatalError),
        (404, ClickHouseFatalError),
        (301, ClickHouseFatalError),
        (502, ClickHouseUnavailableError),
    ],
)
def test_http_status(status: int, expected: type[ClickHouseError]) -> None:
    """An answer that is none of ClickHouse's: a busy proxy is retried, another server is not."""
    error = mapped(driver.DatabaseError(f"HTTP driver received HTTP status {status} (for url x)"))
    assert type(error) is expected


def test_stop_says_what_to_do() -> None:
    """The message of a ClickHouseFatalError ends with what the operator has to do."""
    assert str(mapped(driver.DatabaseError("gone", code=60))).endswith("check the database name")
    assert "grants" in str(mapped(driver.DatabaseError("no", code=497)))


def test_unreachable_says_where_and_what_to_do() -> None:
    """A refused connection names the address and the remedy, on one line."""
    text = str(mapped(ConnectionRefusedError("[Errno 111]\nConnection refused")))
    assert "http://ch.test:8123" in text
    assert "start it, or correct host and port" in text
    assert "\n" not in text


def test_password_is_never_shown() -> None:
    """The password is in no repr and in no error, not even if the server quotes it."""
    assert "s3cret-word" not in repr(CONFIG)
    for code in (0, 27, 516, 241):
        error = driver.DatabaseError("Received: password s3cret-word wrong", code=code)
        assert "s3cret-word" not in str(mapped(error))
