-- One task.
SELECT * FROM tasks WHERE id = 'task-1'
