-- Accepted events, once each, and the conflicts that were refused to count.
-- `part`, `off`, `idx` say where in the event log an event was; no two rows share them.
CREATE TABLE IF NOT EXISTS $events$on_cluster (
    ns LowCardinality(String),
    part UInt16 CODEC(ZSTD(1)),
    off UInt64 CODEC(Delta, ZSTD(1)),
    idx UInt32 CODEC(ZSTD(1)),
    status UInt8,
    inexact UInt8,
    id String CODEC(ZSTD(1)),
    source LowCardinality(String),
    type LowCardinality(String),
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    time_given UInt8,
    datacontenttype LowCardinality(String),
    data String CODEC(ZSTD(1)),
    data_base64 String CODEC(ZSTD(1)),
    ext String CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    stored_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    INDEX by_time time TYPE minmax GRANULARITY 4,
    INDEX by_offset off TYPE minmax GRANULARITY 4
) ENGINE = $merge_tree ORDER BY (ns, type, subject, time)
SETTINGS $window, fsync_after_insert = 1, fsync_part_directory = 1;

-- Who came first: one row per (namespace, source, id) and content. `h` hashes the key's tuple.
CREATE TABLE IF NOT EXISTS $keys$on_cluster (
    h UInt128 CODEC(NONE),
    content UInt64 CODEC(NONE),
    part UInt16 CODEC(ZSTD(1)),
    off UInt64 CODEC(Delta, ZSTD(1)),
    idx UInt32 CODEC(ZSTD(1))
) ENGINE = $merge_tree ORDER BY h
SETTINGS index_granularity = 256, $window, fsync_after_insert = 1, fsync_part_directory = 1;

-- A row per series and event with a usable value. `exact`: read in Python, from the raw text.
CREATE TABLE IF NOT EXISTS $points$on_cluster (
    series UInt32,
    subject String CODEC(ZSTD(1)),
    time DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    part UInt16 CODEC(ZSTD(1)),
    off UInt64 CODEC(Delta, ZSTD(1)),
    idx UInt32 CODEC(ZSTD(1)),
    value Decimal(38, 18) CODEC(ZSTD(1)),
    exact UInt8,
    text String CODEC(ZSTD(1)),
    dims Array(LowCardinality(String)),
    INDEX by_time time TYPE minmax GRANULARITY 4
) ENGINE = $merge_tree ORDER BY (series, subject, time)
SETTINGS index_granularity = 2048, $window, fsync_after_insert = 1, fsync_part_directory = 1;

-- All subjects together, per UTC minute. sum() would keep Decimal(38) and wrap; hence Decimal(76).
CREATE TABLE IF NOT EXISTS $totals$on_cluster (
    series UInt32,
    minute DateTime64(0, 'UTC') CODEC(Delta, ZSTD(1)),
    sum SimpleAggregateFunction(sum, Decimal(76, 18)) CODEC(ZSTD(1)),
    count SimpleAggregateFunction(sum, UInt64) CODEC(ZSTD(1)),
    min SimpleAggregateFunction(min, Decimal(38, 18)) CODEC(ZSTD(1)),
    max SimpleAggregateFunction(max, Decimal(38, 18)) CODEC(ZSTD(1))
) ENGINE = $aggregating ORDER BY (series, minute)
SETTINGS $window, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS totals_from_points$on_cluster TO $totals AS
SELECT
    series,
    toDateTime64(fromUnixTimestamp64Second(intDiv(toUnixTimestamp64Micro(time) - positiveModulo(toUnixTimestamp64Micro(time), 60000000), 1000000)), 0, 'UTC') AS minute,
    sum(toDecimal256(value, 18)) AS sum,
    count() AS count,
    min(value) AS min,
    max(value) AS max
FROM $points GROUP BY series, minute;

-- Events that a series could not use, and why.
CREATE TABLE IF NOT EXISTS $faults$on_cluster (
    series UInt32,
    part UInt16 CODEC(ZSTD(1)),
    off UInt64 CODEC(Delta, ZSTD(1)),
    idx UInt32 CODEC(ZSTD(1)),
    exact UInt8,
    reason LowCardinality(String)
) ENGINE = $merge_tree ORDER BY (series, part, off, idx)
SETTINGS $window, fsync_after_insert = 1, fsync_part_directory = 1;
