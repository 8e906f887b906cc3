-- Every accepted usage event, once under FINAL.
--
-- `version` falls with the source position, so the first occurrence of an event wins, however often
-- and in whatever order rows arrive:
--     version = 2 * (2^63 - 1 - position) + is_deleted
--     position = epoch * 2^53 + offset * 2^9 + index       (10, 44 and 9 bits)
-- A retraction is the rejected row's version + 1 with is_deleted = 1: above that row, below every
-- row of the same sorting key with an earlier position.
-- Codecs were chosen by measuring: rows of a key and day are ordered by an id that says nothing about
-- time, so times and positions are spread over their range, and cutting the unused bits (T64) is
-- smaller than differences (Delta).
CREATE TABLE IF NOT EXISTS {local:usage_events} {on_cluster}
(
    event_id String COMMENT 'Request id and attempt, made by the relay; the identity of the event' CODEC(ZSTD(1)),
    event_time DateTime64(3, 'UTC') COMMENT 'Completion of the request' CODEC(T64, ZSTD(1)),
    organisation LowCardinality(String) COMMENT 'Organisation that pays' CODEC(ZSTD(1)),
    department LowCardinality(String) COMMENT 'Department; unassigned where the event named none' CODEC(ZSTD(1)),
    project LowCardinality(String) COMMENT 'Project, if any' CODEC(ZSTD(1)),
    user String COMMENT 'User, if any' CODEC(ZSTD(3)),
    team LowCardinality(String) COMMENT 'Team, if any' CODEC(ZSTD(1)),
    environment LowCardinality(String) COMMENT 'Environment, if any (production, staging, ...)' CODEC(ZSTD(1)),
    key String COMMENT 'API key id, never the secret' CODEC(ZSTD(3)),
    key_name String COMMENT 'Name of the API key as people know it' CODEC(ZSTD(3)),
    model LowCardinality(String) COMMENT 'Canonical model of the price catalogue; as sent where it knows none' CODEC(ZSTD(3)),
    model_sent LowCardinality(String) COMMENT 'Model as the request named it' CODEC(ZSTD(3)),
    response_model LowCardinality(String) COMMENT 'Model the provider says it used' CODEC(ZSTD(3)),
    provider LowCardinality(String) COMMENT 'Seller whose price applies' CODEC(ZSTD(1)),
    service_tier LowCardinality(String) COMMENT 'standard, batch, priority, flex; empty means standard' CODEC(ZSTD(1)),
    operation LowCardinality(String) COMMENT 'chat, embeddings, ...' CODEC(ZSTD(1)),
    input_tokens Int64 COMMENT 'Tokens in, cached ones included; negative only in a correction' CODEC(T64('bit'), ZSTD(1)),
    output_tokens Int64 COMMENT 'Tokens out, reasoning included' CODEC(T64('bit'), ZSTD(1)),
    cache_read_tokens Int64 COMMENT 'Part of input_tokens read from a cache' CODEC(T64('bit'), ZSTD(1)),
    cache_write_tokens Int64 COMMENT 'Part of input_tokens written to a cache of five minutes' CODEC(T64, ZSTD(1)),
    cache_write_1h_tokens Int64 COMMENT 'Part of input_tokens written to a cache of one hour' CODEC(T64, ZSTD(1)),
    reasoning_tokens Int64 COMMENT 'Part of output_tokens spent on reasoning' CODEC(T64, ZSTD(1)),
    input_audio_tokens Int64 COMMENT 'Part of input_tokens that is audio' CODEC(T64, ZSTD(1)),
    output_audio_tokens Int64 COMMENT 'Part of output_tokens that is audio' CODEC(T64, ZSTD(1)),
    cost_usd Decimal(18, 9) COMMENT 'Cost in US dollars, exact to the nano-dollar; 0 where not priced' CODEC(T64('bit'), ZSTD(1)),
    priced Bool COMMENT 'Whether the catalogue knew a price' CODEC(ZSTD(1)),
    price_version LowCardinality(String) COMMENT 'Version of the price catalogue that rated the event' CODEC(ZSTD(1)),
    reported_cost_usd Nullable(Decimal(18, 9)) COMMENT 'What the relay believes it costs; never billed' CODEC(ZSTD(1)),
    usage_source LowCardinality(String) COMMENT 'provider_reported, relay_counted or estimated' CODEC(ZSTD(1)),
    provider_input_tokens Int64 COMMENT 'Tokens in as the provider reported them' CODEC(T64, ZSTD(1)),
    provider_output_tokens Int64 COMMENT 'Tokens out as the provider reported them' CODEC(T64, ZSTD(1)),
    reservation_id String COMMENT 'Reservation the request was admitted under' CODEC(ZSTD(1)),
    status LowCardinality(String) COMMENT 'Outcome as the relay names it' CODEC(ZSTD(1)),
    http_status Int32 COMMENT 'HTTP status given to the caller; 0 unknown' CODEC(T64, ZSTD(1)),
    error_type LowCardinality(String) COMMENT 'Kind of error, if any' CODEC(ZSTD(1)),
    finish_reason LowCardinality(String) COMMENT 'Why the model stopped' CODEC(ZSTD(1)),
    stream Bool COMMENT 'Whether the answer was streamed' CODEC(T64, ZSTD(1)),
    latency_ms Int32 COMMENT 'Request to completion' CODEC(T64('bit'), ZSTD(1)),
    ttft_ms Int32 COMMENT 'Request to first token' CODEC(T64('bit'), ZSTD(1)),
    user_email String COMMENT 'E-mail of the user, if the relay sends it' CODEC(ZSTD(3)),
    client_ip String COMMENT 'Address of the caller, if the relay sends it' CODEC(ZSTD(3)),
    user_agent LowCardinality(String) COMMENT 'Software of the caller' CODEC(ZSTD(1)),
    action LowCardinality(String) COMMENT 'For audits: action' CODEC(ZSTD(1)),
    resource_type LowCardinality(String) COMMENT 'For audits: kind of resource' CODEC(ZSTD(1)),
    resource_id String COMMENT 'For audits: resource' CODEC(ZSTD(1)),
    request_id String COMMENT 'Request id as the caller knows it' CODEC(ZSTD(3)),
    relay LowCardinality(String) COMMENT 'Relay that served the request' CODEC(ZSTD(1)),
    trace_parent String COMMENT 'W3C trace context' CODEC(ZSTD(3)),
    tags Map(LowCardinality(String), String) COMMENT 'Tags as sent' CODEC(ZSTD(3)),
    corrects_id String COMMENT 'On a correction: event that it corrects' CODEC(ZSTD(1)),
    correction_reason LowCardinality(String) COMMENT 'On a correction: why' CODEC(ZSTD(1)),
    extra String COMMENT 'JSON object of fields that Meterline does not know, and of values stored clamped' CODEC(ZSTD(3)),
    received_delay_ms Int64 COMMENT 'From event_time to the append time in the Kafka log' CODEC(T64, ZSTD(1)),
    source_partition UInt16 COMMENT 'Partition of usage.events' CODEC(T64, ZSTD(1)),
    version UInt64 COMMENT 'Source position, the first highest: see the head of the migration' CODEC(T64('bit'), ZSTD(1)),
    is_deleted UInt8 COMMENT '1 takes back a row that the streams refused' CODEC(ZSTD(1)),
    -- Computed when read: the position is in `version` already.
    source_epoch UInt16 ALIAS bitShiftRight(9223372036854775807 - bitShiftRight(version, 1), 53) COMMENT 'Generation of the Kafka log',
    source_offset UInt64 ALIAS bitAnd(bitShiftRight(9223372036854775807 - bitShiftRight(version, 1), 9), 17592186044415) COMMENT 'Offset in usage.events',
    source_index UInt16 ALIAS bitAnd(9223372036854775807 - bitShiftRight(version, 1), 511) COMMENT 'Position inside the Kafka message',
    received_ms Int64 ALIAS toUnixTimestamp64Milli(event_time) + received_delay_ms COMMENT 'Append time in the Kafka log, UTC ms'
)
ENGINE = {replacing:version, is_deleted}
-- The month of the event never changes, so all rows of one sorting key meet in one partition;
-- closed months can be moved or dropped whole.
PARTITION BY toYYYYMM(event_time)
-- Only immutable columns, or a re-sent event would not meet its first row. Organisation and
-- department first: what reports filter by. The day bounds a scan of one key to a period. The
-- event id last: it makes the sorting key the identity.
ORDER BY (organisation, department, toDate(event_time), key, event_id)
-- An insert that is tried again after a lost answer is recognised by its token; 1,000 tokens are
-- some minutes of batches, far longer than a retry takes.
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Usage events, one row per accepted event under FINAL: sum cost_usd with FINAL only';

{distributed:usage_events:cityHash64(organisation, key)}
