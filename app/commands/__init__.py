"""One module per verb of the command line.

Owns: argument parsing and what a person sees.
Reads: settings; usage_events in the query that `demo` offers.
Writes: to the terminal.
Never: holds a rule of the domain.
"""
