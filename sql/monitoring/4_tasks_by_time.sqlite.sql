-- Tasks that began in the last hour.
SELECT * FROM tasks
WHERE start_time BETWEEN strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour') AND strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
