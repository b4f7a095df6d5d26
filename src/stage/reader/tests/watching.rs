//! Following real files. Each step waits for what the consumer receives, never for time.
use super::*;
use crate::transport::MemoryConsumer;

/// Long enough for any machine; reached only by a test that fails.
const GIVE_UP: Duration = Duration::from_secs(60);

struct Watching {
    consumer: MemoryConsumer,
    shutdown: Shutdown,
    reading: tokio::task::JoinHandle<ReadSummary>,
    store: Store,
}

impl Watching {
    fn start(logs: &Logs, paths: &[PathBuf]) -> Self {
        let options = ReadOptions {
            watch: true,
            flush_interval: Duration::ZERO,
            poll_interval: Duration::from_millis(2),
            ..logs.options.clone()
        };
        let (producer, consumer) = memory(1 << 20);
        let shutdown = Shutdown::new();
        let (paths, ledger, asked) = (paths.to_vec(), logs.store.ledger(), shutdown.clone());
        let reading =
            tokio::spawn(async move { read(&paths, &options, ledger, &producer, &asked).await.unwrap() });
        let chunks = logs.store.chunks.clone();
        Self { consumer, shutdown, reading, store: Store { chunks, newest: logs.store.newest.clone() } }
    }

    fn folder(logs: &Logs) -> Self {
        Self::start(logs, &[logs.folder.path().to_owned()])
    }

    /// Commits what comes until exactly this is committed.
    async fn until_held(&mut self, expected: &[(&str, u32, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, generation, text)| (name.to_string(), *generation, text.to_string()))
            .collect();
        while self.store.contents() != expected {
            match tokio::time::timeout(GIVE_UP, self.consumer.receive()).await {
                Ok(Ok(Some(delivery))) => self.store.commit(delivery.chunk),
                Ok(_) | Err(_) => panic!("{:?} instead of {expected:?}", self.store.contents()),
            }
        }
    }

    async fn stop(mut self) -> (ReadSummary, Store) {
        self.shutdown.request();
        let summary = self.reading.await.unwrap();
        assert!(
            self.consumer.receive().await.unwrap().is_none(),
            "something was shipped that the test does not expect"
        );
        (summary, self.store)
    }
}

#[tokio::test]
async fn appended_lines_and_new_files_are_shipped_and_a_part_of_a_line_waits() {
    let logs = Logs::new();
    let mut watching = Watching::folder(&logs);
    logs.write("a.log", "1\n");
    watching.until_held(&[("a.log", 0, "1\n")]).await;
    logs.append("a.log", "par");
    logs.write("b.log", "x\n");
    watching.until_held(&[("a.log", 0, "1\n"), ("b.log", 0, "x\n")]).await;
    logs.append("a.log", "tial\n2\n");
    watching.until_held(&[("a.log", 0, "1\npartial\n2\n"), ("b.log", 0, "x\n")]).await;
    let (summary, store) = watching.stop().await;
    assert!(summary.interrupted && summary.failures.is_empty());
    assert!(store.chunks.values().all(|chunk| !chunk.open && chunk.bytes.ends_with(b"\n")));
}

#[tokio::test]
async fn a_rotated_file_is_finished_and_its_successor_started() {
    let logs = Logs::new();
    let mut watching = Watching::folder(&logs);
    logs.write("app.log", "1\n");
    watching.until_held(&[("app.log", 0, "1\n")]).await;
    logs.append("app.log", "2\n");
    logs.rename("app.log", "app.log.1");
    logs.write("app.log", "1\nnew\n");
    // the writer has the old file open for a while
    logs.append("app.log.1", "3\n");
    watching.until_held(&[("app.log", 1, "1\nnew\n"), ("app.log.1", 0, "1\n2\n3\n")]).await;
    watching.stop().await;
}

#[tokio::test]
async fn a_file_that_leaves_the_inputs_is_read_to_its_end_by_its_handle() {
    let logs = Logs::new();
    let mut watching = Watching::start(&logs, &[logs.path("app.log")]);
    logs.write("app.log", "1\n");
    watching.until_held(&[("app.log", 0, "1\n")]).await;
    logs.rename("app.log", "elsewhere");
    logs.append("elsewhere", "2\nlast, unterminated");
    logs.write("app.log", "new\n");
    // its last line ends when nothing more has come for a while
    watching.until_held(&[("app.log", 0, "1\n2\nlast, unterminated"), ("app.log", 1, "new\n")]).await;
    watching.stop().await;
}

#[tokio::test]
async fn a_deleted_file_is_read_to_its_end() {
    let logs = Logs::new();
    let mut watching = Watching::folder(&logs);
    logs.write("a.log", "1\n");
    watching.until_held(&[("a.log", 0, "1\n")]).await;
    let mut writer = OpenOptions::new().append(true).open(logs.path("a.log")).unwrap();
    fs::remove_file(logs.path("a.log")).unwrap();
    writer.write_all(b"2\n").unwrap();
    watching.until_held(&[("a.log", 0, "1\n2\n")]).await;
    watching.stop().await;
}

#[tokio::test]
async fn a_truncated_file_is_a_new_generation_at_once() {
    let logs = Logs::new();
    let mut watching = Watching::folder(&logs);
    logs.write("a.log", "first\nsecond\n");
    watching.until_held(&[("a.log", 0, "first\nsecond\n")]).await;
    // in place, as `copytruncate` does
    let file = OpenOptions::new().write(true).open(logs.path("a.log")).unwrap();
    file.set_len(0).unwrap();
    logs.append("a.log", "x\n");
    watching.until_held(&[("a.log", 0, "first\nsecond\n"), ("a.log", 1, "x\n")]).await;
    logs.append("a.log", "y\n");
    watching.until_held(&[("a.log", 0, "first\nsecond\n"), ("a.log", 1, "x\ny\n")]).await;
    watching.stop().await;
}

#[tokio::test]
async fn watching_resumes_from_the_ledger_and_supersedes_an_open_line() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\npart");
    logs.write("b.log", "1\n");
    logs.read().await;
    logs.append("a.log", "ial\n");
    logs.append("b.log", "2\n");
    let mut watching = Watching::folder(&logs);
    watching.until_held(&[("a.log", 0, "1\npartial\n"), ("b.log", 0, "1\n2\n")]).await;
    watching.stop().await;
}

#[tokio::test]
async fn large_files_do_not_keep_small_and_compressed_ones_waiting() {
    let mut logs = Logs::new();
    logs.options.cut.chunk_size_bytes = 1_000;
    let large = lines(0..20_000);
    logs.write("a.log", &large);
    logs.write("b.log.gz", gzip(&large));
    logs.write("c.log.gz", gzip(&large));
    logs.write("d.log", "small\n");
    let mut watching = Watching::folder(&logs);
    let mut large_bytes_before_small = 0;
    loop {
        let chunk =
            tokio::time::timeout(GIVE_UP, watching.consumer.receive()).await.unwrap().unwrap().unwrap().chunk;
        let small = chunk.bytes == "small\n";
        large_bytes_before_small += chunk.bytes.len();
        watching.store.commit(chunk);
        if small {
            break;
        }
    }
    assert!(large_bytes_before_small < large.len() / 4);
    let all =
        [("a.log", 0, &*large), ("b.log.gz", 0, &*large), ("c.log.gz", 0, &*large), ("d.log", 0, "small\n")];
    watching.until_held(&all).await;
    watching.stop().await;
}

#[tokio::test]
async fn a_compressed_file_that_is_still_being_written_is_taken_up_when_it_is_whole() {
    let logs = Logs::new();
    let content = lines(0..60_000);
    let stored = gzip(&content);
    let mut watching = Watching::folder(&logs);
    logs.write("a.log.gz", &stored[..stored.len() / 2]);
    let first =
        tokio::time::timeout(GIVE_UP, watching.consumer.receive()).await.unwrap().unwrap().unwrap().chunk;
    watching.store.commit(first);
    logs.append("a.log.gz", &stored[stored.len() / 2..]);
    watching.until_held(&[("a.log.gz", 0, &content)]).await;
    watching.stop().await;
}

#[tokio::test]
async fn what_cannot_be_read_when_watching_ends_is_reported() {
    let logs = Logs::new();
    logs.write("a.log", "1\n");
    let mut watching = Watching::start(&logs, &[logs.path("missing.log"), logs.folder.path().to_owned()]);
    watching.until_held(&[("a.log", 0, "1\n")]).await;
    let (summary, _) = watching.stop().await;
    assert_eq!(summary.failures.len(), 1);
    assert!(summary.failures[0].error.to_string().contains("missing.log does not exist"));
}
