"""A streams worker as a process of its own, for tests that kill it.

python -m tests.streams_worker JSON     the fields of StreamsSettings; ends on SIGTERM
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from meterline.app.workers.streams import run_streams
from meterline.schemas.metrics import NoMeter
from meterline.streams.settings import StreamsSettings
from tests.streams_model import rate


def start_worker(options: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start it with these settings; `data_dir` as text."""
    return subprocess.Popen([sys.executable, "-m", __name__, json.dumps(options)])


def main() -> None:
    """Run until SIGTERM or the failpoint."""
    options = json.loads(sys.argv[1])
    options["data_dir"] = Path(options["data_dir"])
    settings = StreamsSettings(**options)
    sys.exit(run_streams(settings, rate, lambda: time.time_ns() // 1_000_000, NoMeter()))


if __name__ == "__main__":
    main()
