"""A relay process to be killed: emits without end and prints what was accepted and what is spooled.

    python -m tests.relay_process SPOOL_DIRECTORY BOOTSTRAP FIRST_NUMBER

Lines on standard output: `accepted N` (event numbers up to N, exclusive, were accepted) and
`sealed N` (at least N events of this process are in the spool or beyond).
"""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

import structlog

from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.settings import EmitterSettings
from meterline.schemas.metrics import Metric
from tests.relays import CountingMeter, relay_settings, usage_event

BURST = 20
PAUSE_SECONDS = 0.002


def main() -> None:
    """Emit until killed."""
    # Standard output is for the lines above.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    directory, bootstrap, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    meter = CountingMeter()
    settings = relay_settings(
        directory,
        bootstrap,
        emitter=EmitterSettings(usage_partitions=2, partitions_wait_seconds=0.1),
    )
    emitter = Emitter(settings, lambda: time.time_ns() // 1_000_000, meter)
    emitter.start()
    for number in itertools.count(first):
        now_ms = time.time_ns() // 1_000_000
        if emitter.emit(usage_event(number, time_ms=now_ms)) is not EmitOutcome.ACCEPTED:
            sys.exit("refused")
        if number % BURST == 0:
            # The order matters: what is said to be sealed was counted before.
            sealed = meter.counts[Metric.EMITTED, ""]
            sys.stdout.write(f"accepted {number + 1}\nsealed {sealed}\n")
            sys.stdout.flush()
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main()
