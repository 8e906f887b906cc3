"""Spend to decisions.

Owns: rules, breaker states, the lifecycle of alerts, throttle commands and notifications.
Reads: spend.snapshots, control.policies, its own past alerts, throttle.commands and deliveries; for
    its health checks usage.events and usage.dead-letter; for the top contributors of an alert
    usage_events.
Writes: throttle.commands, alerts, deliveries; requests to receivers.
Never: lets a notification delay a throttle command.
"""
