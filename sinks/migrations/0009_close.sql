-- The monthly close: what was booked, and how far every month has come.
--
-- Booked lines are never changed. A revision or a late event adds lines that hold the difference to
-- what had been booked before, so the sum over the closed runs of an origin month is always what
-- that month costs as far as anybody has been told.
CREATE TABLE IF NOT EXISTS {local:closed_lines} {on_cluster}
(
    booked_period LowCardinality(String) COMMENT 'Month whose books hold the line: 2026-10',
    run UInt64 COMMENT 'Attempt that wrote it, UTC ms; it counts if closed_periods says CLOSED',
    draft UInt8 COMMENT '1 for a dry run: forgotten after a day',
    kind LowCardinality(String) COMMENT 'usage, late or restatement',
    origin_period LowCardinality(String) COMMENT 'Month in which the usage happened',
    day Date COMMENT 'Day of the usage in the billing time zone' CODEC(ZSTD(1)),
    organisation LowCardinality(String) COMMENT 'Organisation that pays',
    department LowCardinality(String) COMMENT 'Department',
    project LowCardinality(String) COMMENT 'Project, if any',
    team LowCardinality(String) COMMENT 'Team, if any',
    environment LowCardinality(String) COMMENT 'Environment, if any',
    key String COMMENT 'API key id' CODEC(ZSTD(1)),
    model LowCardinality(String) COMMENT 'Canonical model',
    provider LowCardinality(String) COMMENT 'Seller whose price applies',
    service_tier LowCardinality(String) COMMENT 'standard, batch, priority, flex; empty means standard',
    tier_floor Int64 COMMENT 'Least input tokens of the context tier; 0 for the base tier' CODEC(T64, ZSTD(1)),
    price_version LowCardinality(String) COMMENT 'Catalogue that rated the events',
    correction_reason LowCardinality(String) COMMENT 'On corrections: why',
    tags String COMMENT 'JSON object of the tags that finance asked for' CODEC(ZSTD(1)),
    key_name String COMMENT 'Name of the API key as people know it' CODEC(ZSTD(1)),
    events Int64 COMMENT 'Events' CODEC(T64, ZSTD(1)),
    unpriced_events Int64 COMMENT 'Events without a price' CODEC(T64, ZSTD(1)),
    input_tokens Int64 COMMENT 'Tokens in, cached ones included' CODEC(T64, ZSTD(1)),
    output_tokens Int64 COMMENT 'Tokens out, reasoning included' CODEC(T64, ZSTD(1)),
    cache_read_tokens Int64 COMMENT 'Part of input_tokens read from a cache' CODEC(T64, ZSTD(1)),
    cache_write_tokens Int64 COMMENT 'Part of input_tokens written to a cache of five minutes' CODEC(T64, ZSTD(1)),
    cache_write_1h_tokens Int64 COMMENT 'Part of input_tokens written to a cache of one hour' CODEC(T64, ZSTD(1)),
    input_audio_tokens Int64 COMMENT 'Part of input_tokens that is audio' CODEC(T64, ZSTD(1)),
    output_audio_tokens Int64 COMMENT 'Part of output_tokens that is audio' CODEC(T64, ZSTD(1)),
    cost_usd Decimal(38, 9) COMMENT 'Cost in US dollars, exact to the nano-dollar' CODEC(ZSTD(1)),
    written_at DateTime DEFAULT now() COMMENT 'When it was written' CODEC(Delta, ZSTD(1))
)
ENGINE = {replacing:run}
PARTITION BY booked_period
-- A run is read whole, organisation by organisation and day by day; the rest makes the identity.
ORDER BY (run, organisation, day, department, key, model, kind, origin_period, project, team, environment, provider, service_tier, tier_floor, price_version, correction_reason, tags)
TTL written_at + INTERVAL 1 DAY DELETE WHERE draft = 1
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Lines of the monthly close; sum cost_usd over the runs that are CLOSED in closed_periods';

{distributed:closed_lines:cityHash64(run, organisation, key)}

CREATE TABLE IF NOT EXISTS {local:closed_periods} {on_cluster}
(
    period LowCardinality(String) COMMENT 'Month in the billing time zone: 2026-10',
    seq UInt64 COMMENT 'Number of the entry within the month, from 1',
    state LowCardinality(String) COMMENT 'OPEN, CLOSING, FROZEN, CLOSED or REOPENED',
    revision UInt32 COMMENT 'From 1; a reopened month is closed as the next revision',
    run UInt64 COMMENT 'Attempt, UTC ms: names its lines in closed_lines',
    at DateTime64(3, 'UTC') COMMENT 'When',
    actor String COMMENT 'Who',
    reason String COMMENT 'Why it was refused or reopened; else empty',
    inputs String COMMENT 'JSON of the frozen inputs' CODEC(ZSTD(3)),
    manifest String COMMENT 'JSON of the manifest, once closed' CODEC(ZSTD(3)),
    version UInt64 COMMENT 'UTC ms of the entry: a repeated entry is replaced'
)
ENGINE = {replacing:version}
-- Small and kept for ever; a month is read whole.
ORDER BY (period, seq)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'States of the months, one row per change: the last is what holds';

{distributed:closed_periods:cityHash64(period)}

CREATE TABLE IF NOT EXISTS {local:erp_deliveries} {on_cluster}
(
    idempotency_key String COMMENT 'Journal and department: the receiver books it once',
    period LowCardinality(String) COMMENT 'Month that was closed',
    run UInt64 COMMENT 'Attempt of the close that it belongs to',
    department String COMMENT 'organisation/department',
    at DateTime64(3, 'UTC') COMMENT 'When the receiver answered',
    outcome LowCardinality(String) COMMENT 'delivered or refused',
    http_status Int32 COMMENT 'Answer of the receiver',
    attempts UInt32 COMMENT 'How many it took in this round',
    version UInt64 COMMENT 'UTC ms of the entry'
)
ENGINE = {replacing:version}
-- One row per key: the last answer holds.
ORDER BY idempotency_key
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'What was pushed to the ERP';

{distributed:erp_deliveries:cityHash64(idempotency_key)}
