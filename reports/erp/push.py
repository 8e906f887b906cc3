"""Push: one JSON object per department of every closed month, booked once by its receiver.

At least once on the wire: what the receiver acknowledged is recorded in erp_deliveries, and a
crash between the two sends it again under the same Idempotency-Key. The order:
    1  send; a retryable response is tried again, first here, then in the next round
    2  record the answer; only then it is not sent again
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import structlog

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.backends.webhook.messages import (
    WebhookAnswer,
    WebhookForbiddenError,
    WebhookRequest,
    WebhookUnreachableError,
)
from meterline.reports.booking.booking_lines import read_line_sums
from meterline.reports.booking.core.inputs import FrozenInputs, decode_inputs
from meterline.reports.booking.core.ledger import PeriodLedger
from meterline.reports.booking.core.statement import statements_of
from meterline.reports.erp.core.payload import Payload, payloads
from meterline.schemas.clock import Clock
from meterline.schemas.finance import PushTarget
from meterline.schemas.tables import ERP_DELIVERIES

ATTEMPTS_MAX = 5
"""In one round: a receiver that restarts is back within the seconds these take."""
WAIT_SECONDS_FIRST, WAIT_SECONDS_MAX = 1, 30
"""Doubled each time, and never above: the next round comes in minutes anyway."""
ANSWER_SECONDS_MAX = 60.0
"""The webhook client ends an attempt long before; longer means that its thread died."""
_TRY_AGAIN = frozenset({408, 409, 425, 429})
_SERVER_ERROR, _SUCCESS_END, _SUCCESS = 500, 300, 200
_COLUMNS = [InsertColumn(*column) for column in ERP_DELIVERIES.columns]

_log = structlog.get_logger()


class PushOutcome(StrEnum):
    """How one delivery ended in one round."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """Permanently rejected by the receiver: an operator has to act."""
    WAITING = "waiting"
    """Retryable: the next round tries again."""


@dataclass(frozen=True, slots=True)
class PushDependencies:
    """Clients, clock and callbacks of a round."""

    client: Client
    post: Callable[[WebhookRequest], Future[WebhookAnswer]]
    token: Callable[[str], str | None]
    """Secret by the name of its variable."""
    clock: Clock
    wait: Callable[[float], object]
    """Sleeps; ends early when the worker stops."""


@dataclass(frozen=True, slots=True)
class PushReport:
    """Number of payloads by outcome."""

    delivered: int = 0
    refused: int = 0
    waiting: int = 0
    before: int = 0
    """Had been delivered before."""


def push_closed(
    dependencies: PushDependencies,
    ledger: PeriodLedger,
    target: PushTarget | None,
    period: str = "",
) -> PushReport:
    """Deliver what was closed with a receiver in its policy and has not been delivered.

    Args:
        dependencies: clients, clock and callbacks.
        ledger: of all months.
        target: the receiver that policy names now; None pushes nothing.
        period: only this month, what was refused included.

    Raises:
        ClickHouseError: the store failed or refused the statement.
    """
    if target is None:
        return PushReport()
    done = _answered(dependencies.client, refused_too=not period)
    counts = dict.fromkeys(PushOutcome, 0)
    before = 0
    for inputs in _closed(ledger, period):
        for each in _payloads(dependencies.client, inputs):
            if each.key in done:
                before += 1
                continue
            outcome = _deliver(dependencies, target, inputs, each)
            counts[outcome] += 1
            if outcome is PushOutcome.WAITING:
                # The receiver is down: every other payload would wait as long.
                return _report(counts, before)
    return _report(counts, before)


def _report(counts: dict[PushOutcome, int], before: int) -> PushReport:
    return PushReport(
        counts[PushOutcome.DELIVERED],
        counts[PushOutcome.REFUSED],
        counts[PushOutcome.WAITING],
        before,
    )


def _closed(ledger: PeriodLedger, period: str) -> Iterator[FrozenInputs]:
    for name in sorted(ledger.months):
        if period and name != period:
            continue
        for entry in ledger.months[name].closed:
            inputs = decode_inputs(entry.inputs)
            if inputs.policy.push is not None:
                yield inputs


def _payloads(client: Client, inputs: FrozenInputs) -> list[Payload]:
    statements = statements_of(read_line_sums(client, [inputs.run]), inputs)
    return [each for statement in statements for each in payloads(statement, inputs)]


def _answered(client: Client, *, refused_too: bool) -> set[str]:
    final: Sequence[str] = [PushOutcome.DELIVERED.value]
    if refused_too:
        final = [*final, PushOutcome.REFUSED.value]
    rows = client.query(
        "SELECT idempotency_key FROM erp_deliveries FINAL WHERE outcome IN {final:Array(String)}",
        {"final": list(final)},
    )
    return {row[0] for row in rows}


def _deliver(
    dependencies: PushDependencies, target: PushTarget, inputs: FrozenInputs, payload: Payload
) -> PushOutcome:
    """One payload: attempts until an answer that is final, or the round's end."""
    pause = WAIT_SECONDS_FIRST
    for attempt in range(1, ATTEMPTS_MAX + 1):
        # 1. Send.
        status, retry_after = _attempt(dependencies, target, payload)
        outcome = _outcome(status)
        if outcome is not PushOutcome.WAITING:
            # 2. Record.
            _record(dependencies, inputs, payload, (outcome, status, attempt))
            _log.info("erp.pushed", key=payload.key, outcome=outcome.value, status=status)
            return outcome
        _log.warning("erp.push_retried", key=payload.key, status=status, attempt=attempt)
        if attempt < ATTEMPTS_MAX:
            dependencies.wait(min(max(pause, retry_after), WAIT_SECONDS_MAX))
            pause *= 2
    return PushOutcome.WAITING


def _attempt(
    dependencies: PushDependencies, target: PushTarget, payload: Payload
) -> tuple[int, int]:
    """Status (0 without a response) and the seconds of its Retry-After."""
    request = WebhookRequest(
        url=target.url,
        message_id=payload.key,
        body=msgspec.json.encode(payload.body),
        at_ms=dependencies.clock(),
        allow_private_address=target.allow_private_address,
        bearer=dependencies.token(target.token_env) or "" if target.token_env else "",
        idempotency_key=payload.key,
    )
    try:
        answer = dependencies.post(request).result(ANSWER_SECONDS_MAX)
    except (WebhookUnreachableError, WebhookForbiddenError) as error:
        # A forbidden address is corrected in policy; the next round then succeeds.
        _log.warning("erp.push_failed", key=payload.key, reason=str(error))
        return 0, 0
    return answer.status, answer.retry_after_seconds or 0


def _outcome(status: int) -> PushOutcome:
    if _SUCCESS <= status < _SUCCESS_END:
        return PushOutcome.DELIVERED
    if status >= _SERVER_ERROR or status in _TRY_AGAIN or not status:
        return PushOutcome.WAITING
    return PushOutcome.REFUSED


def _record(
    dependencies: PushDependencies,
    inputs: FrozenInputs,
    payload: Payload,
    answer: tuple[PushOutcome, int, int],
) -> None:
    outcome, status, attempts = answer
    at_ms = dependencies.clock()
    row = (
        payload.key,
        inputs.period,
        inputs.run,
        payload.department,
        at_ms,
        outcome.value,
        status,
        attempts,
        at_ms,
    )
    dependencies.client.insert(ERP_DELIVERIES.name, _COLUMNS, [[value] for value in row])
