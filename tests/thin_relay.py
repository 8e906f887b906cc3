"""The relay extra installs and works without Faust and ClickHouse.

Run by `make thin-relay`: makes a fresh environment, installs `.[relay]` into it, and lets a gate
decide there. Not a pytest test: it is about what is absent from an environment.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSTALL_TIMEOUT_SECONDS = 300
PROBE = """
import importlib.util as util
absent = ["faust", "clickhouse_connect", "apscheduler", "chdb", "httpx", "typer"]
present = [name for name in absent if util.find_spec(name)]
assert not present, f"the relay extra brought {present}"
# In Python, the checksum of 100 events takes 6 ms of the gateway's processor.
from kafka.record import util as checksums
assert checksums.crc32c_c is not None, "checksums are made in Python: crc32c is missing"
import relay.client
from relay.gate import Admission, Gate, GateRequest
gate = Gate()
request = GateRequest(organisation="acme", department="research", key="k", model="gpt-4.1")
assert gate.decide(request, 1_763_700_000_000).admission is Admission.ADMIT
print("relay extra: 1 passed, 0 failed")
"""


def main() -> int:
    """Build the environment, run the probe, answer with its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin" / "python")
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", f"{ROOT}[relay]"],
            check=True,
            timeout=INSTALL_TIMEOUT_SECONDS,
        )
        return subprocess.run([python, "-c", PROBE], check=False, cwd=folder, timeout=60).returncode


if __name__ == "__main__":
    sys.exit(main())
