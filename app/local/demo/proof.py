"""The end of the story: what the relays sent against what streams and ClickHouse counted."""

from __future__ import annotations

import time
from dataclasses import dataclass

from meterline.app.settings import Settings
from meterline.app.wiring import clickhouse_config, kafka_config
from meterline.backends.clickhouse.client import Client
from meterline.backends.kafka.reader import TopicReader
from meterline.schemas.money import nano_from_usd
from meterline.schemas.periods import WindowKind
from meterline.schemas.spend import SnapshotKey, Totals, decode_snapshot, newer
from meterline.schemas.topics import Topic

READ_SECONDS = 20
POLL_SECONDS = 0.3
_SCOPE = "organisation:acme"


@dataclass(frozen=True, slots=True)
class Proof:
    """Three counts of the same traffic: (events, nano-USD)."""

    sent: tuple[int, int]
    streams: tuple[int, int]
    clickhouse: tuple[int, int]

    @property
    def equal(self) -> bool:
        """Whether all three agree to the event and the nano-dollar."""
        return self.sent == self.streams == self.clickhouse

    @property
    def difference_nano_usd(self) -> int:
        """The larger of the two differences."""
        return max(abs(self.streams[1] - self.sent[1]), abs(self.clickhouse[1] - self.sent[1]))


def prove(settings: Settings, events: int, cost_nano_usd: int, bound_seconds: float) -> Proof:
    """Count until all agree or the time is over; the last counts are returned."""
    client = Client(clickhouse_config(settings))
    deadline = time.monotonic() + bound_seconds
    try:
        while True:
            proof = Proof((events, cost_nano_usd), _streams(settings), _clickhouse(client))
            if proof.equal or time.monotonic() > deadline:
                return proof
            time.sleep(POLL_SECONDS)
    finally:
        client.close()


def _streams(settings: Settings) -> tuple[int, int]:
    """All months of the organisation: the demonstration may run over midnight of the first."""
    newest: dict[SnapshotKey, Totals] = {}
    reader = TopicReader(kafka_config(settings, "proof"), [Topic.SPEND_SNAPSHOTS.value])
    try:
        for record in reader.read_to_end(READ_SECONDS):
            snapshot = decode_snapshot(record.key, record.value)
            if snapshot is None:
                continue
            key, totals = snapshot
            if totals is None or key.scope != _SCOPE or key.kind != WindowKind.MONTH:
                continue
            held = newest.get(key)
            if held is None or newer(totals, held):
                newest[key] = totals
    finally:
        reader.close()
    values = newest.values()
    return sum(one.events for one in values), sum(one.cost_nano_usd for one in values)


def _clickhouse(client: Client) -> tuple[int, int]:
    ((events, cost),) = client.query("SELECT count(), sum(cost_usd) FROM usage_events FINAL", {})
    return int(events), nano_from_usd(str(cost))
