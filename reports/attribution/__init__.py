"""Who spent what, on which model, for which project.

Owns: attribution questions, their SQL and their answers.
Reads: usage_events under FINAL, spend_windows, usage_days.
Writes: nothing.
Never: adds up what may hold an event twice.
"""
