-- Totals per scope, window and shard as the streams publish them: replaceable rows, never added up
-- twice. The total of a scope and window is the sum of its shards, under FINAL.
CREATE TABLE IF NOT EXISTS {local:spend_windows} {on_cluster}
(
    window_kind LowCardinality(String) COMMENT 'minute, hour, day or month' CODEC(ZSTD(1)),
    window_start DateTime64(3, 'UTC') COMMENT 'Start of the window in the billing time zone, inclusive' CODEC(Delta, ZSTD(1)),
    window_end DateTime64(3, 'UTC') COMMENT 'End of the window, exclusive' CODEC(Delta, ZSTD(1)),
    scope_type LowCardinality(String) COMMENT 'organisation, department, project, user or key' CODEC(ZSTD(1)),
    organisation LowCardinality(String) COMMENT 'Organisation of the scope' CODEC(ZSTD(1)),
    scope String COMMENT 'Scope in its one spelling: department:acme/research' CODEC(ZSTD(3)),
    shard LowCardinality(String) COMMENT 'Part of the log that is counted here; sum over shards' CODEC(ZSTD(1)),
    cost_usd Decimal(38, 9) COMMENT 'Cost in US dollars, exact to the nano-dollar' CODEC(ZSTD(1)),
    input_tokens Int64 COMMENT 'Tokens in, cached ones included' CODEC(T64, ZSTD(1)),
    output_tokens Int64 COMMENT 'Tokens out, reasoning included' CODEC(T64, ZSTD(1)),
    cache_read_tokens Int64 COMMENT 'Part of input_tokens read from a cache' CODEC(T64, ZSTD(1)),
    cache_write_tokens Int64 COMMENT 'Part of input_tokens written to a cache' CODEC(T64, ZSTD(1)),
    reasoning_tokens Int64 COMMENT 'Part of output_tokens spent on reasoning' CODEC(T64, ZSTD(1)),
    events Int64 COMMENT 'Events counted' CODEC(T64, ZSTD(1)),
    unpriced_events Int64 COMMENT 'Events counted that had no price' CODEC(T64, ZSTD(1)),
    last_event_time DateTime64(3, 'UTC') COMMENT 'Newest event counted' CODEC(Delta, ZSTD(1)),
    source_epoch UInt16 COMMENT 'Generation of the Kafka log' CODEC(ZSTD(1)),
    source_offset Int64 COMMENT 'Offset in usage.events up to which is counted; -1 before the first' CODEC(T64, ZSTD(1)),
    version UInt64 COMMENT 'source_epoch * 2^48 + source_offset + 1: the newest wins' CODEC(T64, ZSTD(1))
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(window_start)
-- The kind and the start first: every report asks for windows of one kind in a range. Then what it
-- groups by. The shard last: it makes the sorting key the identity of a total.
ORDER BY (window_kind, window_start, scope_type, scope, shard)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Spend per scope and window; sum cost_usd over shards with FINAL only';

{distributed:spend_windows:cityHash64(scope)}
