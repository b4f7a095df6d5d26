-- task: lateral_movement
-- about: internal addresses that within one clock hour reach for remote-access ports of many other internal ones
-- side: archive
-- parameter: hosts integer = 5
SELECT src, date_trunc('hour', timestamp) AS hour, count(DISTINCT dst) AS hosts, count(*) AS connections,
       count(DISTINCT dst_port) AS ports
FROM firewall_logs
WHERE dst_port IN (22, 135, 139, 445, 3389, 5985, 5986)
  AND (ip_in(src, '10.0.0.0/8') OR ip_in(src, '172.16.0.0/12') OR ip_in(src, '192.168.0.0/16'))
  AND (ip_in(dst, '10.0.0.0/8') OR ip_in(dst, '172.16.0.0/12') OR ip_in(dst, '192.168.0.0/16'))
GROUP BY src, date_trunc('hour', timestamp)
HAVING count(DISTINCT dst) >= {hosts}
ORDER BY hosts DESC, hour, src
