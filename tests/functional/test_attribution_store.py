"""Attribution against plain Python, on the real engine: every source, whatever was sent again."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest

from meterline.backends.clickhouse.client import Client
from meterline.backends.clickhouse.config import InsertColumn
from meterline.backends.kafka.config import Record
from meterline.reports.attribution.core.answer import Answer
from meterline.reports.attribution.core.period import Granularity, ReportPeriod
from meterline.reports.attribution.core.question import (
    Attribution,
    AttributionSource,
    Axis,
    Dimension,
    Filter,
    exact_sources,
    read_axis,
)
from meterline.reports.attribution.reader import read_attribution, with_peaks
from meterline.schemas.dead_letter import DeadLetter, encode_dead_letter, encode_original
from meterline.schemas.periods import DAY_MS, Calendar, WindowKind
from meterline.schemas.reasons import RejectReason
from meterline.schemas.scopes import UNASSIGNED
from meterline.schemas.topics import Topic
from meterline.schemas.usage import UsageBatch, UsageEvent
from meterline.sinks.core.batch import SinkBatch
from meterline.sinks.core.handlers import topic_handlers
from meterline.sinks.rollup import refresh, remove_replaced

pytestmark = [pytest.mark.functional, pytest.mark.timeout(400)]
NOW_MS = 1_793_000_000_000  # 2026-10-26
# Half an hour beside UTC, and daylight saving: days that no UTC day is.
ZONES = ("UTC", "America/St_Johns")


class Price(NamedTuple):
    cost_nano_usd: int
    priced: bool
    model: str
    price_version: str = "v"


def rate(event: UsageEvent) -> Price:
    return Price(event.input_tokens * 7 + event.output_tokens, event.model != "odd", event.model)


class Log:
    """What a sink does with a partition of usage.events and of usage.dead-letter."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.shapes = topic_handlers(0, rate)
        self.offset = 0

    def store(self, topic: Topic, value: bytes, offset: int) -> None:
        record = Record(topic.value, 0, offset, NOW_MS, None, value)
        batch = SinkBatch(topic.value)
        self.shapes[topic].take(batch, record)
        for table, block in self.shapes[topic].blocks(list(batch.entries.values())):
            columns = [InsertColumn(*each) for each in block.columns]
            self.client.insert(table, columns, block.data)

    def send(self, events: Sequence[UsageEvent]) -> int:
        self.offset += 1
        value = msgspec.json.encode(UsageBatch(lane="l", seq=self.offset, events=tuple(events)))
        self.store(Topic.USAGE_EVENTS, value, self.offset)
        return self.offset

    def retract(self, event: UsageEvent, offset: int, index: int) -> None:
        letter = DeadLetter(
            topic="usage.events",
            partition=0,
            offset=offset,
            index=index,
            reason=RejectReason.CONFLICT,
            detail="same id, other body",
            timestamp_ms=NOW_MS,
            original_base64=encode_original(msgspec.json.encode(event)),
        )
        self.offset += 1
        self.store(Topic.DEAD_LETTERS, encode_dead_letter(letter), self.offset)


def events_of(source: random.Random, number: int, prefix: str) -> list[UsageEvent]:
    found = []
    for each in range(number):
        key = source.randrange(9)
        found.append(
            UsageEvent(
                id=f"{prefix}-{each}",
                time_ms=NOW_MS - source.randrange(40 * DAY_MS),
                organisation=("acme", "zeta")[key % 2],
                department=("", "research", "o'brien; DROP", "sales")[key % 4],
                project=("", "bot")[key % 2],
                environment=("production", "")[key // 5],
                user=f"u-{source.randrange(4)}",
                key=f"k-{key}",
                model=source.choice(["gpt-4.1", "odd", "claude"]),
                provider=source.choice(["openai", "anthropic"]),
                input_tokens=source.randrange(10, 5_000),
                output_tokens=source.randrange(500),
                cache_read_tokens=source.randrange(3),
                cache_write_tokens=source.randrange(3),
                cache_write_1h_tokens=source.randrange(3),
                tags={"feature": f"f{key % 3}"} if key else {},
            )
        )
    return found


def value_of(event: UsageEvent, axis: Axis) -> str:
    if axis.dimension is Dimension.TAG:
        return event.tags.get(axis.tag, "")
    found: str = getattr(event, axis.dimension.value)
    return found or (UNASSIGNED if axis.dimension is Dimension.DEPARTMENT else "")


KINDS = {
    Granularity.MONTH: WindowKind.MONTH,
    Granularity.DAY: WindowKind.DAY,
    Granularity.HOUR: WindowKind.HOUR,
}


def recomputed(question: Attribution, events: Sequence[UsageEvent]) -> dict[Any, list[int]]:
    """The plain answer: one loop over the distinct events."""
    period = question.period
    found: dict[Any, list[int]] = defaultdict(lambda: [0] * 8)
    for event in events:
        if not period.start_ms <= event.time_ms < period.end_ms:
            continue
        if any(value_of(event, each.axis) not in each.values for each in question.filters):
            continue
        start_ms = period.start_ms
        if question.granularity is not Granularity.TOTAL:
            start_ms = question.calendar.window(KINDS[question.granularity], event.time_ms).start_ms
        sums = found[start_ms, *(value_of(event, axis) for axis in question.by)]
        price = rate(event)
        for number, more in enumerate(
            (
                1,
                event.input_tokens,
                event.output_tokens,
                event.cache_read_tokens,
                event.cache_write_tokens + event.cache_write_1h_tokens,
                event.reasoning_tokens,
                int(not price.priced),
                price.cost_nano_usd,
            )
        ):
            sums[number] += more
    return dict(found)


def answered(answer: Answer) -> dict[Any, list[int]]:
    return {
        (line.start_ms, *line.group): [
            line.sums.events,
            line.sums.input_tokens,
            line.sums.output_tokens,
            line.sums.cache_read_tokens,
            line.sums.cache_write_tokens,
            line.sums.reasoning_tokens,
            line.sums.unpriced_events,
            line.cost_nano_usd,
        ]
        for line in answer.lines
    }


def questions(zone: str) -> list[Attribution]:
    calendar = Calendar(zone)
    month = calendar.window(WindowKind.MONTH, NOW_MS)
    first = calendar.window(WindowKind.DAY, NOW_MS - 11 * DAY_MS)
    last = calendar.window(WindowKind.DAY, NOW_MS)
    whole = ReportPeriod("2026-10", month.start_ms, month.end_ms)
    days = ReportPeriod("12d", first.start_ms, last.end_ms)
    key = Filter(read_axis("key"), ("k-3", "k-4"))
    department = Filter(read_axis("department"), ("research",))

    def axes(*names: str) -> tuple[Axis, ...]:
        return tuple(read_axis(name) for name in names)

    return [
        Attribution(whole, calendar, axes("department", "model")),
        Attribution(whole, calendar, axes("organisation", "key", "project"), Granularity.DAY),
        Attribution(days, calendar, axes("model"), Granularity.MONTH, (department,)),
        Attribution(days, calendar, axes("provider", "environment"), filters=(key,)),
        Attribution(days, calendar, axes("tag:feature", "user"), Granularity.HOUR),
        Attribution(
            days, calendar, (), Granularity.DAY, (Filter(read_axis("tag:feature"), ("",)),)
        ),
    ]


@pytest.mark.parametrize("zone", ZONES)
def test_every_source_equals_a_recomputation(store: Client, zone: str) -> None:
    """Days rolled up, touched again, taken back and read from events give the plain sums always."""
    source = random.Random(zone)
    log = Log(store)
    accepted: list[UsageEvent] = []
    batches: list[tuple[int, list[UsageEvent]]] = []
    rolled_up = 0
    for round_number in range(4):
        events = events_of(source, 120, f"r{round_number}")
        batches.append((log.send(events), events))
        accepted += events
        if round_number:
            # Sent again by the relay, and taken back: an event whose id was another's.
            log.send(source.sample(accepted, 30))
            offset, sent = batches[source.randrange(len(batches))]
            index = source.randrange(len(sent))
            if sent[index] in accepted:
                log.retract(sent[index], offset, index)
                accepted.remove(sent[index])
        for question in questions(zone):
            expected = recomputed(question, accepted)
            plain = read_attribution(store, from_events(question))
            assert answered(plain) == expected
            assert answered(read_attribution(store, question)) == expected
        if round_number < 3:
            at_ms = NOW_MS + 1_000 * round_number
            rolled_up += refresh(store, zone, at_ms, hot_seconds=0)
            remove_replaced(store, at_ms + 2 * 3_600_000)
            assert refresh(store, zone, at_ms + 1, hot_seconds=0) == 0
            for question in questions(zone):
                assert answered(read_attribution(store, question)) == recomputed(question, accepted)
    assert rolled_up > 100


def from_events(question: Attribution) -> Attribution:
    return Attribution(
        question.period,
        question.calendar,
        question.by,
        question.granularity,
        question.filters,
        source=AttributionSource.USAGE_EVENTS,
    )


def test_fresh_rollup_is_what_answers(store: Client) -> None:
    """A counted month is answered by the roll-up's rows, not by reading its events again."""
    log = Log(store)
    events = events_of(random.Random(7), 200, "e")
    log.send(events)
    refresh(store, "UTC", NOW_MS, hot_seconds=0)
    question = questions("UTC")[0]
    expected = recomputed(question, events)
    store.command("TRUNCATE TABLE usage_events")
    answer = read_attribution(store, question)
    assert answer.source is AttributionSource.USAGE_DAYS
    assert answered(answer) == expected


def test_hot_cells_are_left_alone(store: Client) -> None:
    """A bucket of the current day is not counted again at once, and is read from its events."""
    log = Log(store)
    first, second = events_of(random.Random(8), 2, "e")
    today = NOW_MS // DAY_MS * DAY_MS
    hot = [msgspec.structs.replace(each, time_ms=today + 5) for each in (first, second)]
    log.send(hot[:1])
    assert refresh(store, "UTC", NOW_MS) == 1
    log.send(hot[1:])
    assert refresh(store, "UTC", NOW_MS) == 0
    question = questions("UTC")[0]
    assert answered(read_attribution(store, question)) == recomputed(question, hot)
    assert refresh(store, "UTC", NOW_MS + 601_000) > 0


def test_peaks_are_the_busiest_minute(store: Client) -> None:
    """Peak RPM and TPM are the greatest minute of each row, requests and tokens each by itself."""
    minute = NOW_MS // 60_000 * 60_000
    times = [minute, minute + 1, minute + 59_999, minute + 60_000]
    tokens = [1, 2, 3, 900]
    events = [
        UsageEvent(
            id=str(number),
            time_ms=time_ms,
            organisation="acme",
            key="k",
            model="gpt-4.1",
            input_tokens=amount,
        )
        for number, (time_ms, amount) in enumerate(zip(times, tokens, strict=True))
    ]
    Log(store).send(events)
    question = questions("UTC")[0]
    answer = with_peaks(store, read_attribution(store, question))
    assert [line.peaks for line in answer.lines] == [(3, 900)]
    assert AttributionSource.SPEND_WINDOWS not in exact_sources(question)
