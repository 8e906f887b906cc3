"""The door to kafka-python: producer, group consumer, log reader, admin.

Owns: the driver's settings, its bounds and the mapping of its errors.
Reads: topics.
Writes: topics.
Never: lets a type or an error of the driver out; never configures logging.
"""
