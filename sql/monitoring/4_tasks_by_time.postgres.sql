-- Tasks that began in the last hour.
SELECT * FROM tasks WHERE start_time BETWEEN now() - interval '1 hour' AND now()
