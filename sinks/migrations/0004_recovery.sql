-- What a lost Kafka log is rebuilt from besides the events, and what a receipt is found by.

-- One row per stored batch of a lane: tells a re-sent batch from a new one after the log was lost,
-- which numbers of a lane never came, and which batch an event travelled in. Written after the
-- batch's events: a row here means that all of them are stored.
CREATE TABLE IF NOT EXISTS {local:usage_batches} {on_cluster}
(
    lane String COMMENT 'Ordered stream of one relay process: relay/boot/partition' CODEC(ZSTD(1)),
    seq Int64 COMMENT 'Number of the batch in its lane, from 1' CODEC(Delta, ZSTD(1)),
    source_partition UInt16 COMMENT 'Partition of usage.events' CODEC(T64, ZSTD(1)),
    received_at DateTime64(3, 'UTC') COMMENT 'Append time in the Kafka log' CODEC(Delta, ZSTD(1)),
    events UInt16 COMMENT 'Events of it that were stored' CODEC(T64, ZSTD(1)),
    version UInt64 COMMENT 'Source position of its first event, as in usage_events' CODEC(Delta, ZSTD(1)),
    source_epoch UInt16 ALIAS bitShiftRight(9223372036854775807 - bitShiftRight(version, 1), 53) COMMENT 'Generation of the Kafka log',
    source_offset UInt64 ALIAS bitAnd(bitShiftRight(9223372036854775807 - bitShiftRight(version, 1), 9), 17592186044415) COMMENT 'Offset in usage.events'
)
ENGINE = {replacing:version}
-- Not partitioned: the numbers of a lane are compared across months, and rows are a hundredth of
-- the events'. A batch that was sent twice is two rows: its position is part of the identity.
ORDER BY (lane, seq, version)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Batches of usage.events as stored, one row per arrival';

{distributed:usage_batches:cityHash64(lane)}

-- The last record of every key of the topics that remember what was decided and told: published
-- again, byte for byte, when the log was lost.
CREATE TABLE IF NOT EXISTS {local:control_records} {on_cluster}
(
    topic LowCardinality(String) COMMENT 'Topic',
    record_key String COMMENT 'Key of the record' CODEC(ZSTD(1)),
    record_value String COMMENT 'Value of the record; empty for a tombstone' CODEC(ZSTD(3)),
    tombstone UInt8 COMMENT '1 where the record deletes its key',
    at DateTime64(3, 'UTC') COMMENT 'Kafka timestamp of the record' CODEC(Delta, ZSTD(1)),
    version UInt64 COMMENT 'Place in the topic: the last record of a key stands' CODEC(Delta, ZSTD(1))
)
ENGINE = {replacing:version}
-- A topic is read whole, and the key makes the sorting key the identity.
ORDER BY (topic, record_key)
-- Policies and commands hold until they are replaced; alerts and deliveries only matter to the
-- periods they are about, and a year and a month outlasts the longest.
TTL toDateTime(at) + INTERVAL 400 DAY DELETE WHERE topic IN ('alerts', 'deliveries')
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Newest record of every key of the control topics';

{distributed:control_records:cityHash64(topic, record_key)}

-- A receipt asks for one id in all events. Five bits an event let one granule in ten be read in
-- vain: of ten million events a hundred granules, which take a tenth of a second.
ALTER TABLE {local:usage_events} {on_cluster} ADD INDEX IF NOT EXISTS event_id_bloom event_id TYPE bloom_filter(0.1) GRANULARITY 1;
ALTER TABLE {local:dead_letters} {on_cluster} ADD INDEX IF NOT EXISTS event_id_bloom event_id TYPE bloom_filter(0.1) GRANULARITY 1;
-- For rows that are there already; in the background.
ALTER TABLE {local:usage_events} {on_cluster} MATERIALIZE INDEX IF EXISTS event_id_bloom;
ALTER TABLE {local:dead_letters} {on_cluster} MATERIALIZE INDEX IF EXISTS event_id_bloom;
