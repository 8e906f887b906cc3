-- What re-rating changed: one row per event whose price is no longer the one frozen on it.
--
-- The event stays as it is. A row says what the event is charged now and how much that differs from
-- its frozen cost, both absolute: writing it again changes nothing, a later re-rating replaces it,
-- and going back to the frozen price leaves a difference of zero.
CREATE TABLE IF NOT EXISTS {local:price_adjustments} {on_cluster}
(
    event_id String COMMENT 'Event that is charged otherwise' CODEC(ZSTD(1)),
    event_time DateTime64(3, 'UTC') COMMENT 'As on the event: the month it belongs to' CODEC(T64, ZSTD(1)),
    organisation LowCardinality(String) COMMENT 'As on the event',
    department LowCardinality(String) COMMENT 'As on the event',
    project LowCardinality(String) COMMENT 'As on the event',
    user String COMMENT 'As on the event' CODEC(ZSTD(3)),
    team LowCardinality(String) COMMENT 'As on the event',
    environment LowCardinality(String) COMMENT 'As on the event',
    key String COMMENT 'As on the event' CODEC(ZSTD(3)),
    key_name String COMMENT 'As on the event' CODEC(ZSTD(3)),
    model LowCardinality(String) COMMENT 'As on the event, so that requests and cost stay together',
    provider LowCardinality(String) COMMENT 'As on the event',
    service_tier LowCardinality(String) COMMENT 'As on the event',
    input_tokens Int64 COMMENT 'As on the event: decides the context tier' CODEC(T64, ZSTD(1)),
    tags Map(LowCardinality(String), String) COMMENT 'As on the event' CODEC(ZSTD(3)),
    charged_usd Decimal(18, 9) COMMENT 'What the event is charged now' CODEC(ZSTD(1)),
    difference_usd Decimal(18, 9) COMMENT 'charged_usd less the cost frozen on the event' CODEC(ZSTD(1)),
    newly_priced UInt8 COMMENT '1 if the event had no price',
    price_version LowCardinality(String) COMMENT 'Catalogue that gave the price',
    reason LowCardinality(String) COMMENT 'Why it was re-rated',
    run UInt64 COMMENT 'Re-rating that wrote it, UTC ms: the newest holds'
)
ENGINE = {replacing:run}
PARTITION BY toYYYYMM(event_time)
-- As usage_events, so that an event and its adjustment are on one shard and in one order.
ORDER BY (organisation, department, toDate(event_time), key, event_id)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Adjustments by re-rating, under FINAL: cost = usage_events.cost_usd + difference_usd';

{distributed:price_adjustments:cityHash64(organisation, key)}
