"""The alerts or notify worker as a process of its own, for tests that kill it.

python -m tests.alerting_worker alerts BOOTSTRAP [CRASH_AT]
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from meterline.alerting.consumer import run_alerts
from meterline.alerting.notify.worker import run_notify
from meterline.alerting.settings import AlertingSettings, NotifySettings
from meterline.backends.kafka.config import embedded_kafka
from meterline.schemas.metrics import NoMeter


def now_ms() -> int:
    """The present."""
    return int(time.time() * 1000)


def main(worker: str, bootstrap: str, crash_at: str = "") -> int:
    """Run until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    config = embedded_kafka(bootstrap)
    if worker == "alerts":
        return run_alerts(AlertingSettings(crash_at=crash_at), config, now_ms, NoMeter(), stop)
    settings = NotifySettings(crash_at=crash_at, retry_seconds=(0, 1, 1, 1))
    return run_notify(settings, config, os.environ.get, now_ms, NoMeter(), stop)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
