"""The policy file: YAML text to published objects, and the difference that applying it makes.

Owns: the file's shape, its checks and the plan.
Reads: text that it is handed.
Writes: nothing.
Never: publishes.
"""
