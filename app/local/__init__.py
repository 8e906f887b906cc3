"""The pipeline on one machine: `meterline up` and `meterline demo`.

Owns: the order in which servers and workers start and stop, and the demo's story.
Reads: the data directory; how far the sink is behind in usage.events and the topics that it keeps;
    for the demo what `app.local.demo` reads: alerts, throttle.commands, throttle.acks,
    spend.snapshots and usage_events.
Writes: the data directory.
Never: runs in production.
"""
