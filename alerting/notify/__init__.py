"""Alerts to their receivers: on-call, teams and machines.

Owns: routing, delivery schedule and channels.
Reads: alerts, control.policies, throttle.commands, and the deliveries that it wrote itself.
Writes: deliveries and HTTP requests to receivers.
Never: touches a throttle command.
"""
