-- The latest aggregates. SQLite and Postgres.
SELECT window_start, window_end, event_type, count, sum_value, avg_value, unique_users, version
FROM aggregated_data
ORDER BY window_start DESC, event_type
LIMIT 20;
