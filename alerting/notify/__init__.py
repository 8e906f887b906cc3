"""Alerts to their receivers: on-call, teams and machines.

Owns: routing, delivery schedule and channels.
Reads: alerts.
Writes: deliveries and HTTP requests to receivers.
Never: touches a throttle command.
"""
