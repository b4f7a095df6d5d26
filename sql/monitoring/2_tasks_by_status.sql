-- All completed tasks; also pending, running, failed, cancelled.
SELECT * FROM tasks WHERE status = 'completed'
