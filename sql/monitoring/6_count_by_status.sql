-- Tasks by status.
SELECT status, count(*) FROM tasks GROUP BY status ORDER BY status
