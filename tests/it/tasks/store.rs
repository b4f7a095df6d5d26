//! What every database for tasks must do.
use std::time::Duration;

use pipeline::store::tasks::{Beat, Cancelled, Ending, Filter, NewTask, Schedule, TaskStoreError};
use pipeline::task::{TaskStatus, TaskStore};
use serde_json::json;

use super::Place;
use crate::support::{Site, repository};

const LEASE: Duration = Duration::from_secs(10);

fn names() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

async fn claim(store: &TaskStore, worker: &str) -> Option<pipeline::store::tasks::Claim> {
    store.claim(worker, &names(), None, LEASE, 1).await.unwrap().pop()
}

#[tokio::test]
async fn a_row_keeps_what_was_submitted_and_an_id_is_used_once() {
    for place in Place::both() {
        let store = place.open().await;
        let new = NewTask::new("a")
            .with_id("one")
            .with_parameter("text", "naïve 'quoted' \"\\")
            .with_parameter("n", 7);
        assert_eq!(store.submit(&new).await.unwrap(), "one");
        let error = store.submit(&new).await.unwrap_err();
        assert!(matches!(&error, TaskStoreError::IdTaken(id) if id == "one"), "{error}");
        let task = place.open().await.by_id("one").await.unwrap().unwrap();
        assert_eq!((task.status, task.attempt, task.max_attempts), (TaskStatus::Pending, 0, 3));
        assert_eq!(task.parameters, new.parameters);
        assert_eq!((task.start_time, task.end_time, task.result), (None, None, None));
        assert!(store.by_id("other").await.unwrap().is_none());
        assert_eq!(store.list(&Filter::default(), 10).await.unwrap().len(), 1);
        let failed = Filter { status: Some(TaskStatus::Failed), ..Filter::default() };
        assert!(store.list(&failed, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_unique_key_is_of_one_unended_task() {
    for place in Place::both() {
        let store = place.open().await;
        let new =
            |id: &str| NewTask { unique_key: Some("nightly".to_owned()), ..NewTask::new("a").with_id(id) };
        assert_eq!(store.submit(&new("one")).await.unwrap(), "one");
        assert_eq!(store.submit(&new("two")).await.unwrap(), "one");
        store.cancel("one").await.unwrap();
        assert_eq!(store.submit(&new("two")).await.unwrap(), "two");
    }
}

#[tokio::test]
async fn each_task_is_claimed_once_however_many_workers_claim() {
    for place in Place::both() {
        let store = place.open().await;
        for number in 0..60 {
            store.submit(&NewTask::new("a").with_id(&format!("{number}"))).await.unwrap();
        }
        store.submit(&NewTask::new("unknown").with_id("stays")).await.unwrap();
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..4 {
            let store = place.open().await;
            workers.spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let claims = store.claim(&format!("w{worker}"), &names(), None, LEASE, 3).await.unwrap();
                    if claims.is_empty() {
                        return ids;
                    }
                    ids.extend(claims.into_iter().map(|claim| claim.task.id));
                }
            });
        }
        let mut ids: Vec<_> = workers.join_all().await.concat();
        // a row that another transaction held is passed over, and may be left when all others are taken
        while let Some(left) = claim(&store, "last").await {
            ids.push(left.task.id);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 60);
        assert_eq!(store.existing("stays").await.unwrap().status, TaskStatus::Pending);
    }
}

#[tokio::test]
async fn who_lost_a_task_can_write_nothing_of_it() {
    for place in Place::both() {
        let store = place.open().await;
        store.submit(&NewTask::new("a").with_id("one")).await.unwrap();
        let old = claim(&store, "old").await.unwrap();
        assert_eq!(store.beat(&[("one".to_owned(), old.fence)]).await.unwrap(), [Beat::Held]);
        let seen = store.leases().await.unwrap().remove(0);
        assert!(store.say("one", old.fence, "before").await.unwrap());
        // heard of since: not taken
        store.beat(&[("one".to_owned(), old.fence)]).await.unwrap();
        assert!(store.take_over(&seen).await.unwrap().is_none());
        let seen = store.leases().await.unwrap().remove(0);
        let taken = store.take_over(&seen).await.unwrap().unwrap();
        assert_eq!(taken.status, TaskStatus::Pending);
        assert_eq!(taken.error.as_deref(), Some("its worker old was lost in attempt 1"));
        let new = claim(&store, "new").await.unwrap();
        assert_eq!(store.beat(&[("one".to_owned(), old.fence)]).await.unwrap(), [Beat::Lost]);
        assert!(!store.say("one", old.fence, "after").await.unwrap());
        assert!(store.end(&old, &Ending::Completed(json!("old"))).await.unwrap().is_none());
        let ended = store.end(&new, &Ending::Completed(json!("new"))).await.unwrap().unwrap();
        assert_eq!(
            (ended.status, ended.result, ended.attempt),
            (TaskStatus::Completed, Some(json!("new")), 2)
        );
        assert!(store.end(&new, &Ending::Cancelled).await.unwrap().is_none(), "an end is final");
        let lines: Vec<_> =
            store.lines("one", 0, 10).await.unwrap().into_iter().map(|line| line.text).collect();
        assert_eq!(lines, ["before"]);
    }
}

#[tokio::test]
async fn attempts_end_and_what_is_handed_back_does_not_count() {
    for place in Place::both() {
        let store = place.open().await;
        store.submit(&NewTask { max_attempts: 2, ..NewTask::new("a").with_id("one") }).await.unwrap();
        let first = claim(&store, "w").await.unwrap();
        let task = store.end(&first, &Ending::HandedBack).await.unwrap().unwrap();
        assert_eq!((task.status, task.attempt), (TaskStatus::Pending, 0));
        let first = claim(&store, "w").await.unwrap();
        let pause = Some(Duration::from_secs(3600));
        let failed = Ending::Failed { error: "no luck".to_owned(), retry_after: pause };
        let task = store.end(&first, &failed).await.unwrap().unwrap();
        assert_eq!((task.status, task.error.as_deref()), (TaskStatus::Pending, Some("no luck")));
        assert!(claim(&store, "w").await.is_none(), "not before its time");
        assert_eq!(store.cancel("one").await.unwrap(), Cancelled::Done);
        store.retry("one").await.unwrap();
        let second = claim(&store, "w").await.unwrap();
        assert_eq!((second.task.attempt, second.task.attempts_before), (2, 1));
        let seen = store.leases().await.unwrap().remove(0);
        assert_eq!(store.take_over(&seen).await.unwrap().unwrap().status, TaskStatus::Pending);
        claim(&store, "w").await.unwrap();
        let seen = store.leases().await.unwrap().remove(0);
        let task = store.take_over(&seen).await.unwrap().unwrap();
        assert_eq!(task.status, TaskStatus::Failed, "a task that ends its workers is not tried for ever");
        assert!(task.end_time.is_some());
        let error = store.cancel("one").await.unwrap_err().to_string();
        assert!(error.contains("task one is failed"), "{error}");
    }
}

#[tokio::test]
async fn a_running_task_is_asked_to_end_and_a_lost_one_that_was_asked_is_cancelled() {
    for place in Place::both() {
        let store = place.open().await;
        store.submit(&NewTask::new("a").with_id("one")).await.unwrap();
        let run = claim(&store, "w").await.unwrap();
        assert_eq!(store.cancel("one").await.unwrap(), Cancelled::Requested);
        assert_eq!(store.beat(&[("one".to_owned(), run.fence)]).await.unwrap(), [Beat::CancelRequested]);
        let seen = store.leases().await.unwrap().remove(0);
        assert_eq!(store.take_over(&seen).await.unwrap().unwrap().status, TaskStatus::Cancelled);
        let error = store.cancel("two").await.unwrap_err();
        assert!(matches!(error, TaskStoreError::NotFound(_)), "{error}");
    }
}

#[tokio::test]
async fn a_schedule_that_is_due_submits_once() {
    for place in Place::both() {
        let store = place.open().await;
        let schedule = Schedule {
            id: "hourly".to_owned(),
            name: "a".to_owned(),
            parameters: Default::default(),
            cron: "0 * * * *".to_owned(),
            next_at: "2024-01-15T05:00:00.000Z".to_owned(),
        };
        store.set_schedule(&schedule).await.unwrap();
        let due = store.due_schedules().await.unwrap();
        assert_eq!(due, std::slice::from_ref(&schedule));
        let next = "2999-01-15T06:00:00.000Z";
        assert!(store.fire(&schedule, NewTask::new("a"), next).await.unwrap());
        assert!(!store.fire(&schedule, NewTask::new("a"), next).await.unwrap(), "another was first");
        let tasks = store.list(&Filter::default(), 10).await.unwrap();
        assert_eq!(tasks.len(), 1);
        assert_eq!(tasks[0].schedule.as_deref(), Some("hourly"));
        assert!(store.due_schedules().await.unwrap().is_empty());
        assert!(store.remove_schedule("hourly").await.unwrap());
        assert!(!store.remove_schedule("hourly").await.unwrap());
    }
}

#[tokio::test]
async fn old_tasks_are_removed_with_their_lines_and_others_stay() {
    for place in Place::both() {
        let store = place.open().await;
        for id in ["old", "open"] {
            store.submit(&NewTask::new("a").with_id(id)).await.unwrap();
        }
        let run = claim(&store, "w").await.unwrap();
        store.say(&run.task.id, run.fence, "a\0b").await.unwrap();
        store.end(&run, &Ending::Completed(json!(null))).await.unwrap();
        assert_eq!(store.remove_ended(Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(store.remove_ended(Duration::ZERO).await.unwrap(), 1);
        assert_eq!(store.list(&Filter::default(), 10).await.unwrap().len(), 1);
    }
}

/// The statements as people run them: by the databases' own command lines.
#[tokio::test]
async fn the_six_monitoring_queries_run_on_both_databases() {
    let site = Site::new();
    for (place, dialect) in Place::both().into_iter().zip(["sqlite", "postgres"]) {
        let store = place.open().await;
        for (id, ending) in [
            ("task-1", Some(Ending::Completed(json!({ "rows": 3 })))),
            ("task-2", Some(Ending::Completed(json!(null)))),
            ("task-3", Some(Ending::Failed { error: "e".to_owned(), retry_after: None })),
            ("task-4", None),
        ] {
            store.submit(&NewTask::new("a").with_id(id)).await.unwrap();
            if let Some(ending) = ending {
                let run = claim(&store, "w").await.unwrap();
                store.end(&run, &ending).await.unwrap();
            }
        }
        let run = |name: &str| {
            let both = repository(&format!("sql/monitoring/{name}.sql"));
            let one = repository(&format!("sql/monitoring/{name}.{dialect}.sql"));
            let text = std::fs::read_to_string(if both.exists() { both } else { one }).unwrap();
            rows(&site, &place, &text)
        };
        assert_eq!(run("1_all_tasks").len(), 4);
        let completed = run("2_tasks_by_status");
        assert_eq!(completed.len(), 2);
        assert!(completed[0].starts_with("task-"), "{completed:?}");
        let by_id = run("3_task_by_id");
        assert!(by_id.len() == 1 && by_id[0].contains("completed"), "{by_id:?}");
        assert_eq!(run("4_tasks_by_time").len(), 3, "of all that began in the last hour");
        let average: f64 = run("5_average_seconds")[0].parse().unwrap();
        assert!((0.0..60.0).contains(&average), "{average}");
        assert_eq!(run("6_count_by_status"), ["completed|2", "failed|1", "pending|1"]);
    }
}

fn rows(site: &Site, place: &Place, sql: &str) -> Vec<String> {
    let lines = |text: String| text.lines().map(str::to_owned).collect();
    match place.url.strip_prefix("sqlite://") {
        Some(path) => {
            let connection = rusqlite::Connection::open(path).unwrap();
            let mut statement = connection.prepare(sql).unwrap();
            let num_columns = statement.column_count();
            let rows = statement.query_map([], |row| {
                let texts = (0..num_columns).map(|column| match row.get_ref(column).unwrap() {
                    rusqlite::types::ValueRef::Null => String::new(),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                    rusqlite::types::ValueRef::Real(number) => number.to_string(),
                    text => text.as_str().unwrap().to_owned(),
                });
                Ok(texts.collect::<Vec<_>>().join("|"))
            });
            rows.unwrap().map(Result::unwrap).collect()
        }
        None => {
            let mut psql = std::process::Command::new("psql");
            psql.args(["-qAt", &place.url, "-c", sql]).current_dir(site.at(""));
            lines(crate::support::output(&mut psql))
        }
    }
}
