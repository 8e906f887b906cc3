"""Spend to decisions.

Owns: rules, breaker states, alert lifecycles and throttle commands.
Reads: spend.snapshots, control.policies, and its own past alerts and commands.
Writes: throttle.commands, alerts.
Never: lets a notification delay a throttle command.
"""
