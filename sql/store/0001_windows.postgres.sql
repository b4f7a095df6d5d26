-- One row per window and event type, written by `pipeline serve`; the window may still be open.
CREATE TABLE aggregated_data (
  id                 bigint           NOT NULL,
  window_start       double precision NOT NULL,
  window_end         double precision NOT NULL,
  event_type         text             NOT NULL,
  count              bigint           NOT NULL,
  sum_value          double precision NOT NULL,
  avg_value          double precision NOT NULL,
  unique_users       bigint           NOT NULL,
  unique_users_error double precision NOT NULL,
  created_at         timestamptz      NOT NULL DEFAULT now(),
  version            bigint           NOT NULL,
  PRIMARY KEY (window_start, window_end, event_type)
)
