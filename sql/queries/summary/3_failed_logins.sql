-- Failed logins by user.
SELECT username, count(*) AS failed
FROM auth_logs
WHERE status = 'Failed'
GROUP BY username
ORDER BY failed DESC, username;
