-- Per event type: its windows, its events, and the average value of an event. SQLite and Postgres.
SELECT event_type,
       count(*) AS windows,
       sum(count) AS events,
       sum(sum_value) / sum(count) AS overall_avg
FROM aggregated_data
GROUP BY event_type
ORDER BY events DESC, event_type;
