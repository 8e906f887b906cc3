"""What a relay imports.

Owns: the emitter with its spool, the gate and the command subscriber.
Reads: throttle.commands, control.policies.
Writes: usage.events, throttle.acks.
Never: blocks a request on I/O; never imports Faust or ClickHouse.
"""
