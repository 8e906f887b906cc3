"""Load generator: plays a trace or synthetic traffic through real relays, and knows the truth.

Owns: trace formats, the assignment of requests to keys, and the totals that the traffic must give.
Reads: trace files.
Writes: usage.events, through the relay SDK's emitters, and broken ones directly; a file with the
    truth.
Never: reads the pipeline to know what it sent.
"""
