"""The worker processes: the table of them, and one module each.

Owns: which workers there are, and how each is wired to its clients.
Reads: settings that it is handed.
Writes: nothing; a worker's package does the work.
Never: imports a worker's drivers in a process that does not run it.
"""
