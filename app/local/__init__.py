"""The pipeline on one machine: `meterline up` and `meterline demo`.

Owns: the order in which servers and workers start and stop, and the demo's story.
Reads: the data directory.
Writes: the data directory.
Never: runs in production.
"""
