"""The client of kafka-python: producer, group consumer, topic reader, admin.

Owns: the driver's settings, its bounds and the mapping of its errors.
Reads: topics.
Writes: topics.
Never: lets a type or an error of the driver out; never configures logging.
"""
