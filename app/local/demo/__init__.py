"""The demonstration: relays under load, and a narrator who tells what the topics say.

Owns: the story that `meterline demo` tells and the relay processes it starts.
Reads: alerts, throttle.commands, throttle.acks, and what its relays report.
Writes: usage through real relay clients, one policy change, the terminal.
Never: pretends: every line it tells was read from a topic, a table or a relay's gate.
"""
