"""Replays: traces of real traffic through the real emitter, with the truth of what was sent.

Owns: trace formats, the assignment of keys and models, pacing, the truth file.
Reads: trace files.
Writes: usage.events, through `relay.Emitter`; the truth file.
Never: reads the pipeline to know what it sent.
"""
