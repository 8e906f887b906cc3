"""The delivery log's questions on the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import ClickHouseConfig, InsertColumn
from meterline.reports.core.deliveries import (
    FAILED,
    DeliveryHistory,
    NewestDeliveries,
    delivery_rows,
)
from meterline.schemas.delivery import Delivery, DeliveryOutcome, encode_delivery
from meterline.schemas.tables import DELIVERIES
from meterline.sinks.core.control_rows import TopicPosition, delivery_row, rows_block
from meterline.sinks.migrate import migrate
from tests.servers import running_clickhouse

pytestmark = pytest.mark.functional
NOW_MS = 1_793_000_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A store with four messages: delivered at last, failed, muted, and muted but notified later."""
    with running_clickhouse(tmp_path_factory.mktemp("store")) as (host, port):
        client = Client(ClickHouseConfig(host, port))
        migrate(client)
        log = [
            attempt_of("msg_a", "hook", DeliveryOutcome.RETRY, 1, 0),
            attempt_of("msg_a", "hook", DeliveryOutcome.DELIVERED, 2, 5_000),
            attempt_of("msg_b", "hook", DeliveryOutcome.REFUSED, 1, 1_000),
            attempt_of("msg_c", "chat", DeliveryOutcome.MUTED, 0, 2_000),
            attempt_of("msg_d", "chat", DeliveryOutcome.MUTED, 0, 3_000),
            attempt_of("msg_group", "chat", DeliveryOutcome.DELIVERED, 1, 9_000, "d", "e"),
        ]
        rows = [
            delivery_row(encode_delivery(one), TopicPosition(0, at)) for at, one in enumerate(log)
        ]
        block = rows_block(DELIVERIES, rows)
        columns = [InsertColumn(*each) for each in block.columns]
        client.insert(DELIVERIES.name, columns, block.data)
        yield client
        client.close()


def attempt_of(
    name: str, channel: str, outcome: DeliveryOutcome, attempt: int, after_ms: int, *ids: str
) -> Delivery:
    """One record."""
    alert_ids = ids or (name.removeprefix("msg_"),)
    return Delivery(
        message_id=name,
        alert_id=alert_ids[0],
        channel=channel,
        attempt=attempt,
        at_ms=NOW_MS + after_ms,
        outcome=outcome,
        alert_ids=alert_ids,
        alerts=(msgspec.Raw(b'{"summary":"f\xc3\xbcnf"}'),),
        route="r",
    )


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (NewestDeliveries(NOW_MS), ["msg_group", "msg_a", "msg_c", "msg_b"]),
        (NewestDeliveries(NOW_MS, FAILED), ["msg_b"]),
        (NewestDeliveries(NOW_MS, ("retry", "pending")), []),
        (NewestDeliveries(NOW_MS, ("muted",)), ["msg_c"]),
        (NewestDeliveries(NOW_MS, (), "hook"), ["msg_a", "msg_b"]),
        (NewestDeliveries(NOW_MS + 6_000), ["msg_group"]),
        (NewestDeliveries(NOW_MS, limit=1), ["msg_group"]),
        (DeliveryHistory("msg_a"), ["msg_a", "msg_a"]),
        (DeliveryHistory("msg_x' OR 1"), []),
    ],
)
def test_the_newest_word_on_a_message_counts(
    store: Client, question: NewestDeliveries | DeliveryHistory, expected: list[str]
) -> None:
    """What was delivered in the end has not failed, and what a group notified is not muted."""
    rows = delivery_rows(store.query(*question.build()))
    assert [row.message_id for row in rows] == expected


def test_a_row_holds_what_was_notified(store: Client) -> None:
    """The alerts come back as they were written."""
    (row, *_) = delivery_rows(store.query(*NewestDeliveries(NOW_MS).build()))
    assert row.alerts == ['{"summary":"fünf"}']
    assert (row.alert_ids, row.route, row.at_ms) == (["d", "e"], "r", NOW_MS + 9_000)
