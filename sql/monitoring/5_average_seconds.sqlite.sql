-- Seconds that a completed task took, on average. ('%s' would do for whole seconds; julianday keeps milliseconds.)
SELECT avg((julianday(end_time) - julianday(start_time)) * 86400.0) FROM tasks WHERE status = 'completed'
