"""The demonstration: relays under load, and a narrator that prints what the topics say.

Owns: the script of `meterline demo` and the relay processes it starts.
Reads: alerts, throttle.commands, throttle.acks, spend.snapshots, usage_events, and what its relays
    report.
Writes: usage through real relay clients, one policy change, the terminal.
Never: pretends: every line it prints was read from a topic, a table or a relay's gate.
"""
