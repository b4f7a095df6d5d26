//! Workers that are killed by `kill -9` while they work through many tasks.
//!
//! Workers are this test binary again, which is what may run functions of its own. Every run writes a line when it
//! begins and one when it ends; afterwards no two runs of a task may overlap unless the first one's worker was killed,
//! and every task must have ended well, once.
use std::collections::HashMap;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipeline::stage::shutdown::Shutdown;
use pipeline::store::{DEFAULT_SCHEMA, DatabaseLocation};
use pipeline::task::{
    NewTask, Parameters, Registry, TaskContext, TaskFailure, TaskSpec, TaskStatus, TaskStore, Worker,
};
use serde_json::Value;

use super::Place;

const PLACE: &str = "PIPELINE_TEST_TASKS_PLACE";
const JOURNAL: &str = "PIPELINE_TEST_TASKS_JOURNAL";
/// Short, so that many kills fit; long enough for a loaded machine to renew it.
const LEASE: Duration = Duration::from_secs(3);

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[test]
#[ignore = "what the next test starts and kills"]
fn works_until_it_is_killed() {
    let (Ok(place), Ok(journal)) = (std::env::var(PLACE), std::env::var(JOURNAL)) else { return };
    let spec = TaskSpec::new("count").with_attempts(100, Duration::from_millis(10));
    let registry = Registry::new().with_spec(spec, move |context: TaskContext, _: Parameters| {
        let journal = journal.clone();
        async move {
            let note = |event: &str| {
                let mut file = std::fs::OpenOptions::new().append(true).open(&journal)?;
                file.write_all(format!("{event} {} {}\n", context.task().id, std::process::id()).as_bytes())
            };
            note("begin")?;
            tokio::time::sleep(Duration::from_millis(3)).await;
            note("end")?;
            Ok::<_, TaskFailure>(Value::Null)
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let location = DatabaseLocation::parse(&place).unwrap();
        let store = TaskStore::try_open(&location, DEFAULT_SCHEMA).await.unwrap();
        Worker::new(store, registry)
            .with_concurrency(4)
            .with_lease(LEASE)
            .run(&Shutdown::new())
            .await
            .unwrap();
    });
}

fn start(place: &Place, journal: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tasks::campaign::works_until_it_is_killed", "--ignored"])
        .envs([(PLACE, place.url.as_str()), (JOURNAL, journal.to_str().unwrap())])
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ends what it holds, however the test ends.
struct Workers(Vec<Child>);

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

/// `PIPELINE_CHAOS_TASKS` tasks (300), `PIPELINE_CHAOS_TASK_KILLS` kills (4).
#[test]
fn no_task_is_lost_and_none_runs_twice_at_once_when_workers_are_killed() {
    let (num_tasks, num_kills) =
        (number("PIPELINE_CHAOS_TASKS", 300), number("PIPELINE_CHAOS_TASK_KILLS", 4));
    for place in Place::both() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        std::fs::write(&journal, "").unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(place.open());
        runtime.block_on(async {
            for task in 0..num_tasks {
                let new = NewTask { max_attempts: 100, ..NewTask::new("count").with_id(&format!("t{task}")) };
                store.submit(&new).await.unwrap();
            }
        });
        let mut workers = Workers((0..3).map(|_| start(&place, &journal)).collect());
        let ended = || {
            let counts = runtime.block_on(store.count_by_status()).unwrap();
            counts
                .into_iter()
                .filter(|(status, _)| status.is_ended())
                .map(|(_, count)| count as usize)
                .sum::<usize>()
        };
        let mut killed = Vec::new();
        let started = std::time::Instant::now();
        for kill in 0..num_kills {
            // spread over the work: the next kill when the next part of the tasks has ended
            let part = num_tasks * kill / (num_kills + 1);
            while ended() < part {
                assert!(started.elapsed() < Duration::from_secs(1800), "{} of {num_tasks} ended", ended());
                std::thread::park_timeout(Duration::from_millis(10));
            }
            let victim = &mut workers.0[kill % 3];
            killed.push(victim.id());
            victim.kill().unwrap();
            victim.wait().unwrap();
            workers.0[kill % 3] = start(&place, &journal);
        }
        while ended() < num_tasks {
            assert!(started.elapsed() < Duration::from_secs(1800), "{} of {num_tasks} ended", ended());
            std::thread::park_timeout(Duration::from_millis(20));
        }
        drop(workers);
        let counts = runtime.block_on(store.count_by_status()).unwrap();
        let completed = counts.iter().find(|(status, _)| *status == TaskStatus::Completed).unwrap().1;
        assert_eq!(completed as usize, num_tasks, "{counts:?}");
        let text = std::fs::read_to_string(&journal).unwrap();
        let second = expect_no_overlap(&text, &killed);
        println!(
            "{}: {num_tasks} tasks, {num_kills} kills, {second} second runs, in {:.0} s",
            place.url.split(':').next().unwrap(),
            started.elapsed().as_secs_f64()
        );
    }
}

/// Lines are in the order they were written. How many tasks ran more than once.
fn expect_no_overlap(journal: &str, killed: &[u32]) -> usize {
    let mut runs: HashMap<&str, (usize, Option<u32>)> = HashMap::new();
    for line in journal.lines() {
        let [event, id, pid] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let pid: u32 = pid.parse().unwrap();
        let (count, running) = runs.entry(id).or_default();
        if event == "begin" {
            if let Some(before) = running.replace(pid) {
                assert!(
                    killed.contains(&before),
                    "task {id} ran in {pid} while {before}, which lived, ran it"
                );
            }
            *count += 1;
        } else {
            assert_eq!(running.take(), Some(pid), "task {id}: another run began before this one ended");
        }
    }
    runs.values().filter(|(count, _)| *count > 1).count()
}

/// How long an idle worker takes to start a task, on average. `PIPELINE_CHAOS_LATENCY=1` asserts the goal, for a quiet
/// machine.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_starts_a_task_at_once() {
    const COUNT: u32 = 50;
    for place in Place::both() {
        let (sender, mut started) = tokio::sync::mpsc::unbounded_channel();
        let registry = Registry::new().with("now", move |_: TaskContext, _: Parameters| {
            sender.send(std::time::Instant::now()).unwrap();
            async { Ok::<_, TaskFailure>(Value::Null) }
        });
        let shutdown = Shutdown::new();
        let worker = Worker::new(place.open().await, registry);
        let stop = shutdown.clone();
        let working = tokio::spawn(async move { worker.run(&stop).await });
        let store = place.open().await;
        let mut total = Duration::ZERO;
        for number in 0..COUNT {
            let id = store.submit(&NewTask::new("now").with_id(&number.to_string())).await.unwrap();
            let submitted = std::time::Instant::now();
            total += started.recv().await.unwrap().saturating_duration_since(submitted);
            super::until(&store, &id, TaskStatus::Completed).await;
        }
        let mean = total / COUNT;
        println!(
            "{}: started after {:.1} ms on average",
            place.url.split(':').next().unwrap(),
            mean.as_secs_f64() * 1e3
        );
        if std::env::var_os("PIPELINE_CHAOS_LATENCY").is_some() {
            assert!(mean <= Duration::from_millis(10), "{mean:?}");
        }
        shutdown.request();
        working.await.unwrap().unwrap();
    }
}
