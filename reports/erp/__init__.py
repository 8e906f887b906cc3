"""Into the ledger: balanced journals, their layouts, push and pull.

Owns: the neutral journal and its mappings, erp_deliveries.
Reads: statements and files of closed months; erp_deliveries.
Writes: erp_deliveries; journal files, JSON to the receiver that policy names.
Never: books what does not balance.
"""
