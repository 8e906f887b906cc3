"""The monthly close.

Owns: the steps of a close, bills, manifests, the files of a closed month.
Reads: booked lines and the ledger of months through `reports.booking`, totals through other
    reports, policy, rate cards.
Writes: booked lines and months through `reports.booking`, a directory per month and revision, the
    audit log.
Never: edits what was booked: a difference is a new line.
"""
