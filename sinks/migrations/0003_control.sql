-- What the pipeline decided and did. Every record is stored once under FINAL: `version` is the
-- record's place in its topic, and a repeat of the same record falls onto the same sorting key.

CREATE TABLE IF NOT EXISTS {local:alerts} {on_cluster}
(
    alert_id String COMMENT 'One firing or one resolution',
    dedup_key String COMMENT 'rule/threshold/scope/period/budget version',
    rule_id LowCardinality(String) COMMENT 'Rule that speaks',
    rule_type LowCardinality(String) COMMENT 'threshold, limit, breaker or pipeline',
    status LowCardinality(String) COMMENT 'firing or resolved',
    severity LowCardinality(String) COMMENT 'info, warning, error or critical',
    scope String COMMENT 'Whom it is about',
    window_kind LowCardinality(String) COMMENT 'hour, day or month',
    period LowCardinality(String) COMMENT 'Name of the window: 2026-10',
    threshold Int64 COMMENT 'In `unit`: percent for thresholds',
    unit LowCardinality(String) COMMENT 'percent, nano_usd or tokens',
    observed Int64 COMMENT 'Nano-dollars or tokens spent in the window',
    limit Int64 COMMENT 'Budget or limit, nano-dollars or tokens',
    percent Int64 COMMENT 'observed of limit, rounded down',
    budget_version Int64 COMMENT 'Version of the budget it was judged by',
    also_crossed Array(Int64) COMMENT 'Lower thresholds crossed by the same observation',
    summary String COMMENT 'A sentence for people',
    starts_at DateTime64(3, 'UTC') COMMENT 'When it began',
    ends_at DateTime64(3, 'UTC') COMMENT 'When it ended; 1970 while it lasts',
    reset_at DateTime64(3, 'UTC') COMMENT 'When its cause ends by itself',
    commands Array(String) COMMENT 'Throttle commands given for the same cause, scope@epoch.seq',
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
-- By month, so that old ones can be dropped whole.
PARTITION BY toYYYYMM(starts_at)
-- People ask for a scope's alerts in time; the id makes the sorting key the identity.
ORDER BY (scope, starts_at, alert_id)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Alert records, firing and resolved';

{distributed:alerts:cityHash64(scope)}

CREATE TABLE IF NOT EXISTS {local:throttle_commands} {on_cluster}
(
    scope String COMMENT 'Whom it holds for',
    epoch UInt64 COMMENT 'Generation of the controller',
    seq UInt64 COMMENT 'Number of the command within the generation',
    state LowCardinality(String) COMMENT 'closed, throttled, half_open or open',
    mode LowCardinality(String) COMMENT 'reject, queue or redirect',
    admit_percent UInt8 COMMENT 'Share of requests admitted where no rate could be reduced',
    limits String COMMENT 'Absolute limits, JSON',
    fallback_model LowCardinality(String) COMMENT 'Model of a redirect',
    reason String COMMENT 'A sentence for people',
    reason_code LowCardinality(String) COMMENT 'budget_exhausted, hour_spend, manual, released, ...',
    http_status Int32 COMMENT 'Answer to a refused request',
    evidence String COMMENT 'Numbers the decision stood on, JSON; empty for manual ones',
    issued_at DateTime64(3, 'UTC') COMMENT 'When it was given',
    expires_at DateTime64(3, 'UTC') COMMENT 'When the lease ends',
    reset_at DateTime64(3, 'UTC') COMMENT 'When its cause ends by itself; 1970 if unknown',
    on_expiry LowCardinality(String) COMMENT 'release, degrade or hold',
    degrade_percent UInt8 COMMENT 'Limits left after a lease that degrades',
    degrade_nano_usd_per_hour Int64 COMMENT 'Money cap after a lease that degrades, nano-dollars',
    issuer LowCardinality(String) COMMENT 'Who gave it',
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(issued_at)
-- (epoch, seq) is the order of a scope's commands and makes the sorting key the identity.
ORDER BY (scope, epoch, seq)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Throttle commands as published';

{distributed:throttle_commands:cityHash64(scope)}

CREATE TABLE IF NOT EXISTS {local:throttle_acks} {on_cluster}
(
    relay LowCardinality(String) COMMENT 'Relay that speaks',
    scope String COMMENT 'Scope of the command',
    epoch UInt64 COMMENT 'Generation of the controller',
    seq UInt64 COMMENT 'Number of the command',
    applied LowCardinality(String) COMMENT 'accepted, stale, expired or malformed',
    at DateTime64(3, 'UTC') COMMENT 'When the relay applied it',
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(at)
-- Beside the command it answers; `applied` too, because a re-read command is answered as stale and
-- must not hide that it was accepted.
ORDER BY (scope, epoch, seq, relay, applied)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Acknowledgements of throttle commands by relays';

{distributed:throttle_acks:cityHash64(scope)}

CREATE TABLE IF NOT EXISTS {local:dead_letters} {on_cluster}
(
    source_topic LowCardinality(String) COMMENT 'Topic of the rejected record',
    source_epoch UInt16 COMMENT 'Generation of the Kafka log',
    source_partition UInt16 COMMENT 'Its partition',
    source_offset Int64 COMMENT 'Its offset',
    source_index Int32 COMMENT 'Event inside the message; -1 for the whole message',
    reason LowCardinality(String) COMMENT 'Reason code',
    detail String COMMENT 'A sentence for people',
    event_id String COMMENT 'Event id, where it could be read',
    lane String COMMENT 'Lane of the batch, if any',
    seq Int64 COMMENT 'Number of the batch in its lane',
    source_time DateTime64(3, 'UTC') COMMENT 'Kafka timestamp of the rejected record',
    original String COMMENT 'The bytes as they came, at most 64,000' CODEC(ZSTD(3)),
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(source_time)
-- The source position is the identity; the epoch is part of it because positions begin again at 0
-- when a log is lost.
ORDER BY (source_topic, source_epoch, source_partition, source_offset, source_index)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'What could not be counted or stored, and why';

{distributed:dead_letters:cityHash64(source_topic, source_partition)}

CREATE TABLE IF NOT EXISTS {local:audit_log} {on_cluster}
(
    id String COMMENT 'Entry',
    at DateTime64(3, 'UTC') COMMENT 'When it was done',
    actor String COMMENT 'Who did it',
    action LowCardinality(String) COMMENT 'policy.created, policy.changed, ...',
    object_id String COMMENT 'What it was done to',
    reason String COMMENT 'Why, in words',
    before String COMMENT 'JSON of the object before; empty when created' CODEC(ZSTD(3)),
    after String COMMENT 'JSON of the object after; empty when deleted' CODEC(ZSTD(3)),
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
-- Not partitioned: it is small and kept for ever. The history of one object is read in time.
ORDER BY (object_id, at, id)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Administrative actions';

{distributed:audit_log:cityHash64(object_id)}

CREATE TABLE IF NOT EXISTS {local:deliveries} {on_cluster}
(
    message_id String COMMENT 'Webhook-id: the same in every attempt',
    channel LowCardinality(String) COMMENT 'Receiver',
    attempt UInt32 COMMENT 'Number of the attempt, from 1',
    alert_id String COMMENT 'Alert that is told',
    dedup_key String COMMENT 'Dedup key of the alert',
    at DateTime64(3, 'UTC') COMMENT 'When it was tried',
    outcome LowCardinality(String) COMMENT 'delivered, retry, refused, gone, forbidden or exhausted',
    http_status Int32 COMMENT 'Answer of the receiver; 0 if none came',
    error String COMMENT 'What went wrong, without secrets',
    next_attempt DateTime64(3, 'UTC') COMMENT 'When it is tried again; 1970 if never',
    duration_ms Int64 COMMENT 'How long the attempt took',
    version UInt64 COMMENT 'Place in the topic: a repeated record is replaced'
)
ENGINE = {replacing:version}
PARTITION BY toYYYYMM(at)
-- One message's attempts side by side; the attempt's time is part of the identity because a
-- notifier that crashed before it recorded an attempt numbers the next one alike.
ORDER BY (message_id, channel, attempt, at)
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Attempts to deliver alerts';

{distributed:deliveries:cityHash64(message_id)}
