//! What workers do with tasks: attempts, panics, time limits, steps.
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pipeline::stage::shutdown::Shutdown;
use pipeline::store::tasks::{Filter, Schedule};
use pipeline::task::{
    NewTask, Parameters, Registry, Step, Task, TaskContext, TaskFailure, TaskLog, TaskSpec, TaskStatus,
    Worker,
};
use serde_json::{Value, json};

use super::{Place, until};

type Outcome = Result<Value, TaskFailure>;

fn quick(name: &str) -> TaskSpec {
    TaskSpec::new(name).with_attempts(3, Duration::from_millis(1))
}

/// A worker in a task of its own; stops with its handle.
struct Working {
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Working {
    async fn start(place: &Place, registry: &Registry, concurrency: usize) -> Self {
        let worker = Worker::new(place.open().await, registry.clone()).with_concurrency(concurrency);
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            worker.run(&stop).await.unwrap();
        });
        Self { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.request();
        self.task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_panics_are_tried_again_and_then_final_and_the_worker_goes_on() {
    for place in Place::both() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = calls.clone();
        let registry = Registry::new()
            .with_spec(quick("third"), move |_: TaskContext, _: Parameters| {
                let call = counted.fetch_add(1, Ordering::SeqCst);
                async move {
                    assert!(call != 0, "the first call panics");
                    if call == 1 { Err(std::io::Error::other("the second fails"))? } else { Ok(json!(call)) }
                }
            })
            .with_spec(quick("never"), |_: TaskContext, _: Parameters| async move {
                let cause: Result<i32, _> = "x".parse::<i32>();
                Ok(json!(cause?))
            })
            .with_spec(quick("hopeless"), |_: TaskContext, _: Parameters| async move {
                Err::<Value, _>(TaskFailure::permanent("no use"))
            })
            .with_spec(
                quick("slow").with_attempts(1, Duration::ZERO).with_timeout(Duration::from_millis(20)),
                |_: TaskContext, _: Parameters| async move {
                    std::future::pending::<()>().await;
                    Ok::<_, TaskFailure>(Value::Null)
                },
            );
        let store = place.open().await;
        let working = Working::start(&place, &registry, 2).await;
        for name in ["third", "never", "hopeless", "slow"] {
            Task::submit(&store, &registry, NewTask::new(name).with_id(name)).await.unwrap();
        }
        let third = until(&store, "third", TaskStatus::Completed).await;
        assert_eq!((third.result, third.attempt, third.error), (Some(json!(2)), 3, None));
        let never = until(&store, "never", TaskStatus::Failed).await;
        assert_eq!((never.attempt, never.error.as_deref()), (3, Some("invalid digit found in string")));
        let hopeless = until(&store, "hopeless", TaskStatus::Failed).await;
        assert_eq!((hopeless.attempt, hopeless.error.as_deref()), (1, Some("no use")));
        let slow = until(&store, "slow", TaskStatus::Failed).await;
        assert_eq!(slow.error.as_deref(), Some("timed out: it may take 0.02 s"));
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_of_a_hundred_steps_ends_with_one_worker_that_runs_one_task() {
    for place in Place::both() {
        let registry = Registry::new()
            .with("step", |_: TaskContext, parameters: Parameters| async move {
                Ok::<_, TaskFailure>(parameters["number"].clone())
            })
            .with("sum", |context: TaskContext, _: Parameters| async move {
                let step = |number: i64| {
                    Step::new(&format!("s{number}"), NewTask::new("step").with_parameter("number", number))
                };
                let first = context.in_turn(vec![step(1000)]).await?;
                let tasks = context.in_parallel((0..100).map(step).collect()).await?;
                let sum =
                    first.iter().chain(&tasks).filter_map(|task| task.result.as_ref()?.as_i64()).sum::<i64>();
                Ok::<_, TaskFailure>(sum)
            });
        let store = place.open().await;
        let working = Working::start(&place, &registry, 1).await;
        Task::submit(&store, &registry, NewTask::new("sum").with_id("p")).await.unwrap();
        let parent = until(&store, "p", TaskStatus::Completed).await;
        assert_eq!((parent.result, parent.attempt), (Some(json!(1000 + 4950)), 1));
        assert_eq!(store.children("p").await.unwrap().len(), 101);
        working.stop().await;
    }
}

/// A parent whose step `bad` fails in the parent's first attempt; `tolerated` as declared.
fn family(bad: Arc<AtomicU32>, good: Arc<AtomicU32>) -> Registry {
    Registry::new()
        .with_spec(quick("good"), move |_: TaskContext, _: Parameters| {
            good.fetch_add(1, Ordering::SeqCst);
            async { Ok::<_, TaskFailure>(json!("fine")) }
        })
        .with_spec(quick("bad"), move |_: TaskContext, _: Parameters| {
            let call = bad.fetch_add(1, Ordering::SeqCst);
            async move { if call == 0 { Err(TaskFailure::permanent("broken")) } else { Ok(json!("mended")) } }
        })
        .with_spec(
            quick("parent").with_attempts(1, Duration::ZERO),
            |context: TaskContext, p: Parameters| async move {
                let bad = Step::new("bad", NewTask::new("bad"));
                let bad = if p["tolerated"] == json!(true) { bad.tolerated() } else { bad };
                let tasks = context.in_turn(vec![Step::new("good", NewTask::new("good")), bad]).await?;
                let statuses: Vec<_> = tasks.iter().map(|task| task.status.name()).collect();
                Ok::<_, TaskFailure>(json!(statuses))
            },
        )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_fails_its_parent_or_is_tolerated_and_a_retry_runs_only_what_is_lacking() {
    for place in Place::both() {
        let store = place.open().await;
        let [bad, good] = [(); 2].map(|()| Arc::new(AtomicU32::new(0)));
        let registry = family(bad.clone(), good.clone());
        let working = Working::start(&place, &registry, 2).await;
        let new = NewTask::new("parent").with_parameter("tolerated", true).with_id("lenient");
        Task::submit(&store, &registry, new).await.unwrap();
        let lenient = until(&store, "lenient", TaskStatus::Completed).await;
        assert_eq!(lenient.result, Some(json!(["completed", "failed"])));
        bad.store(0, Ordering::SeqCst);
        good.store(0, Ordering::SeqCst);
        let new = NewTask::new("parent").with_parameter("tolerated", false).with_id("strict");
        Task::submit(&store, &registry, new).await.unwrap();
        let strict = until(&store, "strict", TaskStatus::Failed).await;
        let error = strict.error.unwrap();
        assert!(error.starts_with("step bad (bad, task ") && error.ends_with(" failed: broken"), "{error}");
        store.retry("strict").await.unwrap();
        let strict = until(&store, "strict", TaskStatus::Completed).await;
        assert_eq!(strict.result, Some(json!(["completed", "completed"])));
        assert_eq!((good.load(Ordering::SeqCst), bad.load(Ordering::SeqCst)), (1, 2));
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_parent_cancels_what_is_below_it() {
    for place in Place::both() {
        let registry = Registry::new()
            .with("endless", |_: TaskContext, _: Parameters| async move {
                std::future::pending::<()>().await;
                Ok::<_, TaskFailure>(Value::Null)
            })
            .with("parent", |context: TaskContext, _: Parameters| async move {
                let steps = ["one", "two"].map(|name| Step::new(name, NewTask::new("endless")));
                context.in_parallel(steps.to_vec()).await?;
                Ok::<_, TaskFailure>(Value::Null)
            });
        let store = place.open().await;
        let working = Working::start(&place, &registry, 1).await;
        Task::submit(&store, &registry, NewTask::new("parent").with_id("p")).await.unwrap();
        let steps = loop {
            let mark = store.mark().await;
            let steps = store.children("p").await.unwrap();
            if steps.iter().any(|step| step.status == TaskStatus::Running) {
                break steps;
            }
            store.changed_since(&mark, Duration::from_millis(100)).await;
        };
        store.cancel("p").await.unwrap();
        until(&store, "p", TaskStatus::Cancelled).await;
        for step in steps {
            until(&store, &step.id, TaskStatus::Cancelled).await;
        }
        working.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stops_hands_its_task_back_and_what_it_said_stays() {
    for place in Place::both() {
        let registry = Registry::new().with("second", |context: TaskContext, _: Parameters| async move {
            let said = context.task().error.is_none() && !context.task().parameters.contains_key("quick");
            context.log("begins").await?;
            if said {
                std::future::pending::<()>().await;
            }
            Outcome::Ok(Value::Null)
        });
        let store = place.open().await;
        let working = Working::start(&place, &registry, 1).await;
        Task::submit(&store, &registry, NewTask::new("second").with_id("t")).await.unwrap();
        while store.lines("t", 0, 1).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        working.stop().await;
        let task = store.existing("t").await.unwrap();
        assert_eq!((task.status, task.attempt), (TaskStatus::Pending, 0), "the attempt does not count");
        assert!(store.lines("t", 0, 1).await.unwrap()[0].text.ends_with(" begins"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_cannot_be_due_again_holds_up_no_other() {
    let registry = Registry::new()
        .with_spec(quick("ticks"), |_: TaskContext, _: Parameters| async { Outcome::Ok(Value::Null) });
    for place in Place::both() {
        let store = place.open().await;
        for (id, cron) in [("first", "0 0 0 1 1 * 2020"), ("second", "0 0 1 1 *")] {
            let schedule = Schedule {
                id: id.to_owned(),
                name: "ticks".to_owned(),
                parameters: Parameters::new(),
                cron: cron.to_owned(),
                next_at: "2024-01-15T05:00:00.000Z".to_owned(),
            };
            store.set_schedule(&schedule).await.unwrap();
        }
        let working = Working::start(&place, &registry, 1).await;
        let mut tasks = Vec::new();
        for _ in 0..600 {
            tasks = store.list(&Filter::default(), 10).await.unwrap();
            if !tasks.is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        working.stop().await;
        let fired: Vec<_> = tasks.iter().filter_map(|task| task.schedule.as_deref()).collect();
        assert_eq!(fired, ["second"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_checked_before_a_task_is_a_row() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Typed {
        count: u32,
    }
    let registry = Registry::new()
        .with("typed", |_: TaskContext, typed: Typed| async move { Ok::<_, TaskFailure>(typed.count + 1) });
    let place = Place::sqlite();
    let store = place.open().await;
    let run = |new: NewTask| Task::run(&store, &registry, new);
    let task = run(NewTask::new("typed").with_parameter("count", 41)).await.unwrap();
    assert_eq!(task.result, Some(json!(42)));
    let error = run(NewTask::new("typed").with_parameter("count", "x")).await.unwrap_err().to_string();
    assert!(error.starts_with("task typed: invalid type"), "{error}");
    let error = run(NewTask::new("typo")).await.unwrap_err().to_string();
    assert!(error.contains("near: typed"), "{error}");
    assert_eq!(store.list(&Default::default(), 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_task_log_has_a_line_for_every_start_and_end() {
    let place = Place::sqlite();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("task_log.log");
    let registry = Registry::new().with_spec(quick("fails"), |_: TaskContext, _: Parameters| async {
        Outcome::Err(TaskFailure::permanent("e"))
    });
    let store = place.open().await;
    Task::submit(&store, &registry, NewTask::new("fails").with_id("f")).await.unwrap();
    let worker = Worker::new(store, registry).with_root("f").with_log(TaskLog::new(&path));
    worker.run(&Shutdown::new()).await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!((&lines[0]["event"], &lines[0]["id"]), (&json!("start"), &json!("f")));
    assert_eq!(
        (&lines[1]["event"], &lines[1]["status"], &lines[1]["error"]),
        (&json!("end"), &json!("failed"), &json!("e"))
    );
    assert!(lines[1]["seconds"].as_f64().is_some() && lines[1]["end_time"].is_string(), "{text}");
}
