"""A seeded simulator of the pipeline's decisions, in the manner of TigerBeetle's.

The real ledger, recovery, engine, restore and gate run in one process, in simulated time, on
simulated logs. A seed decides everything: what is sent, what fails, in which order. An auditor
with plain dictionaries knows what must come out, and checks every record as it is written.

    relays ──► usage logs ──► workers ──► changelog ──► controllers ──► commands ──► gates ─┐
      ▲                                                        └──► alerts                  │
      └─────────────────────────── admitted requests ◄──────────────────────────────────────┘

    python -m tests.simulation              until stopped, one line of progress a second
    python -m tests.simulation --seed 17    one schedule, with its trace
"""
