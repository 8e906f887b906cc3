"""What a relay's author uses: one object that decides and records.

client = RelayClient(settings, clock, meter)
client.start(wait_ready_seconds=5)
...
decision = client.decide(GateRequest("acme", "k-17", "gpt-4.1", department="research"))
if decision.admission is Admission.ADMIT:
    ...                                                  # call the provider
    client.record(UsageEvent(id=..., ..., **openai_chat_usage(response["usage"])))
...
client.close()
"""

from __future__ import annotations

from meterline.relay.emitter import EmitOutcome, Emitter
from meterline.relay.gate import Gate, GateDecision, GateRequest
from meterline.relay.settings import RelaySettings
from meterline.relay.subscriber import Subscriber
from meterline.schemas.clock import Clock
from meterline.schemas.metrics import Meter
from meterline.schemas.usage import UsageEvent


class RelayClient:
    """Emitter, gate and subscriber of one relay process."""

    def __init__(
        self,
        settings: RelaySettings,
        clock: Clock,
        meter: Meter,
        *,
        emitter: Emitter | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Open the spool; no thread runs and no connection is made before `start`.

        Args:
            settings: spool, emitter, gate and cluster of this relay.
            clock: the current time, UTC ms.
            meter: where metrics go.
            emitter: by default one of `settings`; tests give one with faults.
            gate: the same.

        Raises:
            SpoolInUseError: another process has the spool's directory.
            SpoolUnusableError: the directory cannot be used.
        """
        self._clock = clock
        self.emitter = emitter if emitter is not None else Emitter(settings, clock, meter)
        self.gate = gate if gate is not None else Gate(settings.gate)
        self._subscriber = Subscriber(settings.kafka, settings.relay_id, self.gate, clock, meter)

    def start(self, wait_ready_seconds: float = 0.0) -> bool:
        """Start; works without a broker too, and connects when one is reachable.

        Args:
            wait_ready_seconds: how long to wait for the commands to be read to their end.

        Returns:
            Whether the gate is ready; if not, each policy's `fail_open` decides until it is.
        """
        self.emitter.start()
        self._subscriber.start()
        return self._subscriber.wait_ready(wait_ready_seconds)

    def decide(self, request: GateRequest) -> GateDecision:
        """Decide one request now; takes microseconds."""
        return self.gate.decide(request, self._clock())

    def record(self, event: UsageEvent) -> EmitOutcome:
        """After the response: emit its usage and charge the gate's rates with it.

        The gate is charged even if the emitter rejects the event: the tokens are used all the same.
        """
        request = GateRequest(
            event.organisation,
            event.key,
            event.model,
            event.department,
            event.project,
            event.user,
        )
        tokens = event.input_tokens + event.output_tokens
        self.gate.settle(request, tokens, self._clock(), event.reported_cost_nano_usd or 0)
        return self.emitter.emit(event)

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Drain and stop.

        Returns:
            Whether the broker has every recorded event; if not, the next process sends the rest.
        """
        self._subscriber.stop()
        return self.emitter.close(timeout_seconds)
