-- Seconds that a completed task took, on average.
SELECT avg(extract(epoch FROM end_time - start_time)) FROM tasks WHERE status = 'completed'
