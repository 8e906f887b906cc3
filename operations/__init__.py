"""Use cases that need two packages or more.

Owns: verify, reconcile, rebuild, back-test, explain, event trace, status, replay, close.
Reads: usage.events, spend.snapshots, usage.dead-letter, throttle.commands, throttle.acks, alerts and
    deliveries; tables through `reports`, and usage_events.
Writes: what a use case is for: usage.events of a replay, corrections to spend.snapshots, a restored
    log, alerts of drift, deliveries that are sent again, audit entries through `control`.
Never: reads settings or the environment.
"""
