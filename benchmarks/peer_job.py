"""What both peers' programs share: the job in plain Python, before their own windows.

Summing a message first is what makes them fast: 100 events of one lane touch about as many scopes
and minutes, where each event by itself would be four records for their windows.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from benchmarks.worker_process import say

WINDOW_SECONDS = (60, 3_600, 86_400, 30 * 86_400)
SUMS = ("cost_nano_usd", "input_tokens", "output_tokens", "events")
# Nano-USD per token in and out; both sides price by the model's name only.
PRICES = {
    "gpt-4.1": (2_000, 8_000),
    "gpt-4.1-mini": (400, 1_600),
    "claude-sonnet-4.5": (3_000, 15_000),
    "gemini-2.5-flash": (300, 2_500),
    "deepseek-v3.2": (280, 420),
}
SAY_SECONDS = 0.25


def fold(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Sums per scope and minute of one message."""
    totals: dict[tuple[str, int], list[int]] = {}
    for event in batch["events"]:
        tokens_in, tokens_out = event.get("input_tokens", 0), event.get("output_tokens", 0)
        price_in, price_out = PRICES[event["model"]]
        cost = tokens_in * price_in + tokens_out * price_out
        minute = event["time_ms"] // 60_000
        organisation = event["organisation"]
        for scope in (
            f"organisation:{organisation}",
            f"department:{organisation}/{event['department']}",
            f"project:{organisation}/{event['project']}",
            f"key:{organisation}/{event['key']}",
        ):
            total = totals.get((scope, minute))
            if total is None:
                total = totals[scope, minute] = [0, 0, 0, 0]
            total[0] += cost
            total[1] += tokens_in
            total[2] += tokens_out
            total[3] += 1
    return [
        {"scope": scope, "time_ms": minute * 60_000, **dict(zip(SUMS, total, strict=True))}
        for (scope, minute), total in totals.items()
    ]


class Progress:
    """Counts events that came to the windows and says how many, a few times a second."""

    def __init__(self) -> None:
        """Begin at nothing; says something once there is something."""
        self._events = 0
        threading.Thread(target=self._run, daemon=True).start()

    def note(self, record: dict[str, Any]) -> None:
        """Every event is in exactly one organisation's record."""
        if record["scope"].startswith("organisation:"):
            self._events += record["events"]

    def _run(self) -> None:
        said = 0
        while True:
            time.sleep(SAY_SECONDS)
            if self._events > said:
                said = self._events
                say(said)
