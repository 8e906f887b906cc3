"""A webhook receiver takes every request and never answers: who else feels it?

The alerts worker and the notify worker run as processes on the embedded broker. Scopes use up their
budgets one after the other; each must be throttled, and notified to the other channel, as quickly as
before. When the receiver answers again, it gets every alert.

    python -m benchmarks.outages_suite.webhook BOOTSTRAP          the notify worker itself
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.outages_suite.load import CALM_SECONDS, Peak
from benchmarks.report import Figure, Target
from meterline.alerting.notify.channels.webhook import WebhookChannel
from meterline.alerting.notify.core.outbox import IN_FLIGHT_PER_CHANNEL_MAX
from meterline.alerting.notify.worker import run_notify
from meterline.alerting.settings import NotifySettings
from meterline.app.clock import now_ms
from meterline.backends.kafka.config import embedded_kafka
from meterline.schemas.delivery import DeliveryOutcome
from meterline.schemas.metrics import NoMeter
from meterline.schemas.policy import Budget, NotifyPolicy, ScopePolicy
from meterline.schemas.throttle import BreakerState
from tests.alerting_broker import Log, running_log, running_process, worker_process
from tests.webhook_receiver import SECRET, Answer, Received, Receiver, running_receiver

SCOPES_PER_SECOND = 10.0
BUDGET_NANO_USD = 1_000_000_000
SPENT_USD = "1.2"
SECRET_NAME = "METERLINE_SECRET_OUTAGE_HOOK"  # noqa: S105 - a name, no secret
DEAD, OTHER = "dead", "other"
# A request that hangs is given up after this; so the dead channel also sees retries.
REQUEST_SECONDS_MAX = 5.0
# The product's own schedule lasts three days; here a receiver comes back within minutes.
RETRY_SECONDS = (0, *(2,) * 60)
# A channel that failed for a minute is paused for up to two before it is probed.
QUIET_SECONDS_MAX = 240.0
# An alert held up by the dead channel would wait for one of its requests at least.
SEEN_MEDIAN_MS_MAX = REQUEST_SECONDS_MAX * 1000
NOTIFY_GROWTH_MIB_MAX = 64.0


class OutageScenario:
    """Scopes that spend, and when each was throttled and notified."""

    def __init__(self, log: Log, receiver: Receiver) -> None:
        self._log = log
        self._number = 0
        self.spent_at: dict[str, float] = {}
        self.command_at: dict[str, float] = {}
        self.notified_at: dict[str, float] = {}
        self._commands_seen = 0
        receiver.judges[f"/{OTHER}"] = self._note

    def policies(self, count: int) -> None:
        """Budgets of the next `count` scopes."""
        for number in range(self._number, self._number + count):
            budget = Budget(month_nano_usd=BUDGET_NANO_USD)
            self._log.policy(ScopePolicy(scope=f"key:acme/k-{number}", budget=budget))

    def run(self, seconds: float) -> list[str]:
        """Scopes use up their budgets at a steady rate; their names."""
        names: list[str] = []
        begun = time.monotonic()
        while (elapsed := time.monotonic() - begun) < seconds:
            while len(names) < elapsed * SCOPES_PER_SECOND:
                name = f"key:acme/k-{self._number}"
                self._number += 1
                names.append(name)
                self.spent_at[name] = time.monotonic()
                self._log.spend(name, SPENT_USD)
            self._take()
        return names

    def wait(self, holds: Callable[[], bool], what: str) -> None:
        """Read until something holds."""
        deadline = time.monotonic() + QUIET_SECONDS_MAX
        while not holds():
            assert time.monotonic() < deadline, f"not within {QUIET_SECONDS_MAX:g} s: {what}"
            self._take()

    def milliseconds(self, names: list[str], seen_at: dict[str, float]) -> list[float]:
        """How long each took to be seen."""
        self.wait(lambda: all(name in seen_at for name in names), "every scope is seen")
        return [(seen_at[name] - self.spent_at[name]) * 1000 for name in names]

    def _take(self) -> None:
        self._log.take(0.01)
        at = time.monotonic()
        for command in self._log.commands[self._commands_seen :]:
            if command.state is BreakerState.OPEN:
                self.command_at.setdefault(command.scope, at)
        self._commands_seen = len(self._log.commands)

    def _note(self, request: Received) -> None:
        scope = request.verified()["data"]["scope"]
        self.notified_at.setdefault(scope, time.monotonic())


@contextmanager
def running_notify(bootstrap: str) -> Iterator[int]:
    """The notify worker as a process; its id."""
    argv = [sys.executable, "-m", __name__, bootstrap]
    env = {**os.environ, SECRET_NAME: SECRET}
    with worker_process(argv, QUIET_SECONDS_MAX, env) as process:
        yield process.pid


def webhook_outage(seconds: float) -> list[Figure]:
    """The receiver of one of two channels hangs for so long."""
    with (
        running_receiver() as receiver,
        running_log() as log,
        running_process("alerts", log.config),
        running_notify(log.config.bootstrap) as notify_pid,
    ):
        log.policy(NotifyPolicy(channels=(_channel(receiver, DEAD), _channel(receiver, OTHER))))
        scenario = OutageScenario(log, receiver)
        scenario.policies(int((CALM_SECONDS + seconds) * SCOPES_PER_SECOND) + 2)
        # The workers start meanwhile: the first scopes wait for them and are not measured.
        warm = scenario.run(0.5)
        scenario.milliseconds(warm, scenario.command_at)
        scenario.milliseconds(warm, scenario.notified_at)
        calm = scenario.run(CALM_SECONDS - 0.5)
        calm_command_ms = scenario.milliseconds(calm, scenario.command_at)
        calm_other_ms = scenario.milliseconds(calm, scenario.notified_at)
        memory = Peak(notify_pid)
        memory.start()
        receiver.judges[f"/{DEAD}"] = lambda _: Answer(hang=True)
        hung = scenario.run(seconds)
        command_ms = scenario.milliseconds(hung, scenario.command_at)
        other_ms = scenario.milliseconds(hung, scenario.notified_at)
        waiting = len(hung) - _delivered(log, set(hung))
        del receiver.judges[f"/{DEAD}"]
        receiver.released.set()
        begun = time.monotonic()
        everyone = set(scenario.spent_at)
        scenario.wait(
            lambda: _delivered(log, everyone) == len(everyone), "the dead channel's alerts"
        )
        return [
            Figure("webhook_calm_command_ms", calm_command_ms, "ms"),
            Figure("webhook_command_ms", command_ms, "ms"),
            Figure("webhook_calm_other_ms", calm_other_ms, "ms"),
            Figure("webhook_other_ms", other_ms, "ms"),
            Figure("webhook_alerts", [len(everyone)], ""),
            Figure("webhook_waiting", [waiting], ""),
            Figure("webhook_under_way_max", [IN_FLIGHT_PER_CHANNEL_MAX], ""),
            Figure("webhook_recovery_seconds", [time.monotonic() - begun], "s"),
            Figure("webhook_notify_growth_mib", [memory.stop()], "MiB"),
        ]


def webhook_targets() -> list[Target]:
    """Commands and the other channel go on; the messages that wait take bounded memory."""
    return [
        # Otherwise the receiver did not hang, and nothing was shown.
        Target("webhook_waiting", ">", 0),
        Target("webhook_command_ms", "<", SEEN_MEDIAN_MS_MAX),
        Target("webhook_other_ms", "<", SEEN_MEDIAN_MS_MAX),
        Target("webhook_notify_growth_mib", "<", NOTIFY_GROWTH_MIB_MAX),
    ]


def _channel(receiver: Receiver, name: str) -> WebhookChannel:
    return WebhookChannel(
        id=name,
        url=receiver.url(f"/{name}"),
        secret_env=SECRET_NAME,
        allow_private_address=True,
    )


def _delivered(log: Log, scopes: set[str]) -> int:
    """How many of the scopes' alerts the dead channel has taken."""
    ids = {alert.id for alert in log.alerts if alert.scope in scopes}
    return len(
        {
            delivery.alert_id
            for delivery in log.deliveries
            if delivery.channel == DEAD
            and delivery.outcome is DeliveryOutcome.DELIVERED
            and delivery.alert_id in ids
        }
    )


def main() -> None:
    """The notify worker, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = NotifySettings(
        request_timeout_seconds=REQUEST_SECONDS_MAX, retry_seconds=RETRY_SECONDS
    )
    sys.exit(
        run_notify(settings, embedded_kafka(sys.argv[1]), os.environ.get, now_ms, NoMeter(), stop)
    )


if __name__ == "__main__":
    main()
