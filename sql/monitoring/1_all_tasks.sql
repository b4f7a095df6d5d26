-- All tasks.
SELECT * FROM tasks
