"""Push closed months to the ERP: the published receiver, the stored months, one round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from meterline.backends.clickhouse.client import Client
from meterline.backends.webhook.client import WebhookClient
from meterline.control.store import read_policies
from meterline.operations.pipeline import Pipeline
from meterline.reports.booking.core.inputs import mapping_of
from meterline.reports.booking.period_store import read_ledger
from meterline.reports.erp.push import PushDependencies, PushReport, push_closed
from meterline.schemas.clock import Clock


def push_due(
    pipeline: Pipeline,
    token: Callable[[str], str | None],
    clock: Clock,
    wait: Callable[[float], object],
    period: str = "",
) -> PushReport:
    """Push what was closed and not delivered yet, to the receiver that policy names now.

    Args:
        pipeline: whose months are pushed.
        token: a secret by the name of its variable.
        clock: the time.
        wait: sleeps a number of seconds between attempts; may end early.
        period: a month's name, such as 2026-10; empty for all that are due.

    Raises:
        KafkaClientError: the published policy cannot be read.
        ClickHouseError: the closed months cannot be read, or an outcome not stored.
    """
    target = mapping_of(read_policies(pipeline.kafka("push"))).finance.push
    if target is None:
        return PushReport()
    with closing(WebhookClient()) as webhook, closing(Client(pipeline.clickhouse)) as client:
        dependencies = PushDependencies(client, webhook.post, token, clock, wait)
        return push_closed(dependencies, read_ledger(client), target, period)
