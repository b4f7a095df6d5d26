//! One pass over inputs: cuts, resumption, damage, errors, shutdown.
use super::*;
use crate::model::Piece;

fn cut(chunk_size_bytes: usize, max_line_bytes: usize) -> CutOptions {
    CutOptions { chunk_size_bytes, max_line_bytes }
}

#[tokio::test]
async fn runs_with_other_chunk_sizes_complete_each_other() {
    let content = lines(0..500) + &"x".repeat(2_000) + "\n" + &lines(500..600) + "\n\nend";
    let sizes = [1, 3, 5, 64, 1_000, 1 << 20];
    for stored in
        [content.clone().into_bytes(), gzip(&content), zstd::encode_all(content.as_bytes(), 1).unwrap()]
    {
        for (round, size) in sizes.into_iter().enumerate() {
            let mut logs = Logs::new();
            logs.write("a.log", &stored);
            let paths = [logs.folder.path().to_owned()];
            // of each run only some chunks are committed, each time others
            for (run, size) in [size, sizes[(round + 1) % sizes.len()], 7].into_iter().enumerate() {
                logs.options.cut = cut(size, 300);
                let (_, chunks) = logs.read_only(&paths).await.unwrap();
                for (_, chunk) in chunks.into_iter().enumerate().filter(|(place, _)| (place + run) % 3 == 0) {
                    logs.store.commit(chunk);
                }
            }
            logs.options.cut = cut(100, 300);
            logs.read().await;
            logs.store.assert_holds(&[("a.log", 0, &content)]);
            assert!(logs.read().await.is_empty());
        }
    }
}

#[tokio::test]
async fn an_over_long_line_goes_on_at_its_next_piece() {
    let content = "a\n".to_owned() + &"x".repeat(25) + "\nb\n";
    for stored in [content.clone().into_bytes(), gzip(&content)] {
        let mut logs = Logs::new();
        logs.options.cut = cut(10, 10);
        logs.write("a.log", stored);
        let paths = [logs.folder.path().to_owned()];
        let (_, chunks) = logs.read_only(&paths).await.unwrap();
        let pieces: Vec<_> = chunks.iter().map(|chunk| chunk.piece).collect();
        let piece = |index, last| Some(Piece { index, last });
        assert_eq!(pieces, [None, piece(0, false), piece(1, false), piece(2, true), None]);
        chunks.into_iter().take(2).for_each(|chunk| logs.store.commit(chunk));
        let pieces: Vec<_> = logs.read().await.iter().map(|chunk| chunk.piece).collect();
        assert_eq!(pieces, [piece(1, false), piece(2, true), None]);
    }
}

#[tokio::test]
async fn a_line_without_end_is_read_in_bounded_pieces() {
    let mut logs = Logs::new();
    let len = (64 << 20) + 1;
    fs::File::create(logs.path("nul.log")).unwrap().set_len(len).unwrap();
    let (_, chunks) = logs.read_only(&[logs.folder.path().to_owned()]).await.unwrap();
    assert_eq!(chunks.len(), 65);
    assert!(chunks.iter().all(|chunk| chunk.bytes.len() <= 1 << 20));
    assert_eq!(chunks[64].piece, Some(Piece { index: 64, last: true }));
    assert_eq!(chunks[64].range().end_byte, len);
    logs.options.cut = CutOptions::default();
}

#[tokio::test]
async fn any_bytes_are_read_as_they_are() {
    let mut logs = Logs::new();
    let content: Vec<u8> =
        (0..100_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    logs.write("binary.log", &content);
    logs.options.cut = cut(10_000, 1_000);
    let (_, chunks) = logs.read_only(&[logs.path("binary.log")]).await.unwrap();
    assert_eq!(chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect::<Vec<_>>(), content);
}

#[tokio::test]
async fn compression_is_recognised_by_content_not_by_name() {
    let mut logs = Logs::new();
    logs.write("members.log", [gzip("1\n2"), gzip("\n3\n")].concat());
    logs.write("plain.log.gz", "1\n");
    logs.write("zstd.log.gz", zstd::encode_all(&b"1\n"[..], 1).unwrap());
    logs.read().await;
    logs.store.assert_holds(&[
        ("members.log", 0, "1\n2\n3\n"),
        ("plain.log.gz", 0, "1\n"),
        ("zstd.log.gz", 0, "1\n"),
    ]);
}

#[tokio::test]
async fn a_damaged_file_gives_its_whole_lines_fails_alone_and_is_taken_up_when_repaired() {
    for encode in
        [|content: &str| gzip(content), |content: &str| zstd::encode_all(content.as_bytes(), 1).unwrap()]
    {
        let mut logs = Logs::new();
        let content = lines(0..60_000);
        let stored = encode(&content);
        logs.write("a.log.gz", &stored[..stored.len() * 2 / 3]);
        logs.write("b.log", "1\n");
        let paths = [logs.folder.path().to_owned()];
        let (summary, chunks) = logs.read_paths(&paths).await.unwrap();
        assert_eq!(summary.failures.len(), 1);
        assert!(matches!(summary.failures[0].error, SourceError::Corrupt { byte: 1.., .. }));
        assert!(chunks.iter().all(|chunk| chunk.bytes.ends_with(b"\n")));
        let contents = logs.store.contents();
        assert!(!contents[0].2.is_empty() && content.starts_with(&contents[0].2));
        assert_eq!(contents[1].2, "1\n");

        logs.write("a.log.gz", stored);
        logs.read().await;
        logs.store.assert_holds(&[("a.log.gz", 0, &content), ("b.log", 0, "1\n")]);
    }
}

#[tokio::test]
async fn garbage_in_the_middle_of_a_gzip_is_reported_with_its_place() {
    let mut logs = Logs::new();
    let mut stored = [gzip(lines(0..50_000)), gzip(lines(50_000..100_000))].concat();
    let middle = stored.len() / 2 + 100;
    stored[middle..middle + 200].fill(0xff);
    logs.write("a.log.gz", &stored);
    let (summary, chunks) = logs.read_paths(&[logs.path("a.log.gz")]).await.unwrap();
    let SourceError::Corrupt { raw_byte, byte, .. } = summary.failures[0].error else { panic!() };
    assert!(raw_byte > stored.len() as u64 / 4 && raw_byte <= stored.len() as u64);
    let shipped: u64 = chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum();
    assert!(shipped > 0 && shipped <= byte);
}

#[tokio::test]
async fn nothing_to_read_at_all_is_an_error_that_names_the_first_reason() {
    let mut logs = Logs::new();
    for (paths, expected) in [
        (vec![logs.path("missing")], "missing does not exist; check the path"),
        (vec![logs.path("*.log"), logs.path("missing")], "(and 1 more)"),
        (vec![logs.folder.path().to_owned()], "holds no *.log"),
        (vec![], "no path given"),
    ] {
        let error = logs.read_paths(&paths).await.unwrap_err().to_string();
        assert!(error.starts_with("nothing to read: ") && error.contains(expected), "{error}");
        assert!(!error.contains('\n'));
    }
    logs.write("a.log", "1\n");
    let (summary, chunks) = logs.read_paths(&[logs.path("missing"), logs.path("a.log")]).await.unwrap();
    assert_eq!((summary.failures.len(), chunks.len()), (1, 1));
}

#[tokio::test]
async fn a_shutdown_stops_between_chunks_even_when_the_queue_is_full() {
    let logs = Logs::new();
    logs.write("a.log", lines(0..10_000));
    logs.write("b.log", "1\n");
    let options = ReadOptions { cut: cut(100, 1_000), ..ReadOptions::default() };
    let (producer, mut consumer) = memory(200);
    let shutdown = Shutdown::new();
    let paths = [logs.folder.path().to_owned()];
    let reading = read(&paths, &options, Ledger::default(), &producer, &shutdown);
    let stopping = async {
        let first = consumer.receive().await.unwrap().unwrap().chunk;
        shutdown.request();
        first
    };
    let (summary, first) = tokio::join!(reading, stopping);
    let summary = summary.unwrap();
    assert_eq!(first.first_byte, 0);
    assert!(summary.interrupted && summary.failures.is_empty());
    assert!(summary.sources.iter().all(|read| !read.complete && read.bytes_shipped < 1_000));
}

#[tokio::test]
async fn a_pause_ships_the_lines_that_have_come_through_a_pipe() {
    let logs = Logs::new();
    let pipe = logs.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let options = ReadOptions { flush_interval: Duration::from_millis(1), ..ReadOptions::default() };
    let (producer, mut consumer) = memory(1 << 20);
    let shutdown = Shutdown::new();
    let paths = [pipe.clone()];
    let reading = async {
        let summary = read(&paths, &options, Ledger::default(), &producer, &shutdown).await.unwrap();
        drop(producer);
        summary
    };
    let writing = async {
        let mut writer = blocking(move || OpenOptions::new().write(true).open(pipe).unwrap()).await;
        writer.write_all(b"1\n2\npart").unwrap();
        // the writer is still there: only a pause can have cut these
        assert_eq!(consumer.receive().await.unwrap().unwrap().chunk.bytes, "1\n2\n");
        writer.write_all(b"ial\n3").unwrap();
        assert_eq!(consumer.receive().await.unwrap().unwrap().chunk.bytes, "partial\n");
        drop(writer);
        let last = consumer.receive().await.unwrap().unwrap().chunk;
        assert_eq!((&last.bytes[..], last.open), (&b"3"[..], false));
        assert!(consumer.receive().await.unwrap().is_none());
    };
    let (summary, ()) = tokio::join!(reading, writing);
    assert_eq!((summary.sources.len(), summary.sources[0].bytes_shipped), (1, 13));
}
