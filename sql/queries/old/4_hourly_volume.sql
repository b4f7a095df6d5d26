-- Events per log type per hour (of the session's time zone), from the old table.
SELECT log_type, date_trunc('hour', "timestamp"::timestamptz) AS hour, count(*) AS events
FROM logs
GROUP BY log_type, date_trunc('hour', "timestamp"::timestamptz)
ORDER BY log_type, hour;
