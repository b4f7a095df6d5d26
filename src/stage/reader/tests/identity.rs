//! The identity rules, each on real files across two runs.
use super::*;

#[tokio::test]
async fn reading_again_ships_nothing() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n2\n");
    logs.write("b.log", "3\nunterminated");
    logs.write("c.log.gz", gzip("4\n5"));
    logs.write("empty.log", "");
    assert_eq!(logs.read().await.len(), 5);
    assert!(logs.read().await.is_empty());
    logs.store.assert_holds(&[
        ("a.log", 0, "1\n2\n"),
        ("b.log", 0, "3\nunterminated"),
        ("c.log.gz", 0, "4\n5"),
    ]);
}

#[tokio::test]
async fn a_grown_file_is_read_from_where_it_was_left() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n");
    logs.read().await;
    logs.append("a.log", "2\n");
    assert_eq!(logs.read().await[0].bytes, "2\n");
    logs.append("a.log", lines(0..2_000));
    logs.read().await;
    logs.store.assert_holds(&[("a.log", 0, &("1\n2\n".to_owned() + &lines(0..2_000)))]);
}

#[tokio::test]
async fn an_open_last_line_is_superseded_when_it_has_grown() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\npart");
    let chunks = logs.read().await;
    assert_eq!(chunks.iter().map(|chunk| chunk.open).collect::<Vec<_>>(), [false, true]);
    logs.append("a.log", "ial");
    let chunks = logs.read().await;
    assert_eq!((chunks.len(), &chunks[0].bytes[..], chunks[0].open), (1, &b"partial"[..], true));
    logs.append("a.log", "\n2\n");
    let chunks = logs.read().await;
    assert_eq!((chunks.len(), &chunks[0].bytes[..], chunks[0].open), (1, &b"partial\n2\n"[..], false));
    assert!(logs.read().await.is_empty());
    logs.store.assert_holds(&[("a.log", 0, "1\npartial\n2\n")]);
}

#[tokio::test]
async fn a_rotated_file_keeps_its_identity_and_its_successor_is_new() {
    let mut logs = Logs::new();
    logs.write("app.log", "1\n");
    logs.read().await;
    logs.append("app.log", "2\n");
    logs.rename("app.log", "app.log.1");
    // the same first bytes as its predecessor, as a banner would give
    logs.write("app.log", "1\nnew\n");
    logs.read().await;
    logs.store.assert_holds(&[("app.log", 1, "1\nnew\n"), ("app.log.1", 0, "1\n2\n")]);
    logs.rename("app.log.1", "app.log.2");
    logs.rename("app.log", "app.log.1");
    logs.write("app.log", "1\nnewer\n");
    logs.read().await;
    assert_eq!(logs.store.newest.len(), 3);
    assert!(logs.read().await.is_empty());
}

#[tokio::test]
async fn a_renamed_file_is_not_read_again() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n");
    logs.read().await;
    logs.rename("a.log", "b.log");
    assert!(logs.read().await.is_empty());
    logs.append("b.log", "2\n");
    logs.read().await;
    logs.store.assert_holds(&[("b.log", 0, "1\n2\n")]);
}

#[tokio::test]
async fn a_truncated_file_is_a_new_generation() {
    let mut logs = Logs::new();
    logs.write("a.log", "first\nsecond\n");
    logs.read().await;
    logs.write("a.log", "first\n");
    logs.read().await;
    logs.write("a.log", "x\n");
    logs.read().await;
    logs.store.assert_holds(&[("a.log", 0, "first\nsecond\n"), ("a.log", 1, "first\n"), ("a.log", 2, "x\n")]);
}

#[tokio::test]
async fn another_head_or_another_last_chunk_in_the_same_inode_is_a_new_generation() {
    let mut logs = Logs::new();
    logs.write("a.log", "first\n");
    logs.read().await;
    logs.write("a.log", "other and longer\n");
    logs.read().await;
    logs.store.assert_holds(&[("a.log", 0, "first\n"), ("a.log", 1, "other and longer\n")]);

    let head = lines(0..1_000);
    logs.write("b.log", head.clone() + "before\n");
    logs.read().await;
    logs.write("b.log", head.clone() + "after, longer\n");
    logs.read().await;
    let contents = logs.store.contents();
    assert_eq!(contents[2], ("b.log".to_owned(), 0, head.clone() + "before\n"));
    assert_eq!(contents[3], ("b.log".to_owned(), 1, head + "after, longer\n"));
}

#[tokio::test]
async fn a_copy_is_another_source() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n");
    logs.read().await;
    logs.write("b.log", "1\n");
    logs.read().await;
    logs.store.assert_holds(&[("a.log", 0, "1\n"), ("b.log", 0, "1\n")]);
}

#[tokio::test]
async fn a_file_written_anew_under_its_path_with_its_old_content_has_grown() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n");
    logs.read().await;
    logs.write("a.tmp", "1\n2\n");
    logs.rename("a.tmp", "a.log");
    assert_eq!(logs.read().await[0].bytes, "2\n");
    logs.store.assert_holds(&[("a.log", 0, "1\n2\n")]);
}

#[tokio::test]
async fn two_names_of_one_file_are_one_source() {
    let mut logs = Logs::new();
    logs.write("a.log", "1\n");
    fs::hard_link(logs.path("a.log"), logs.path("hard.log")).unwrap();
    std::os::unix::fs::symlink(logs.path("a.log"), logs.path("soft.log")).unwrap();
    let paths = [logs.folder.path().to_owned(), logs.path("a.log"), logs.path("soft.log")];
    let (summary, chunks) = logs.read_paths(&paths).await.unwrap();
    assert_eq!((summary.sources.len(), chunks.len()), (1, 1));
    fs::remove_file(logs.path("a.log")).unwrap();
    fs::remove_file(logs.path("soft.log")).unwrap();
    assert!(logs.read().await.is_empty());
}

#[tokio::test]
async fn a_compressed_file_with_other_content_behind_the_same_head_is_read_anew() {
    let mut logs = Logs::new();
    logs.write("a.log.gz", gzip(lines(0..2_000)));
    logs.read().await;
    logs.write("a.log.gz", gzip(lines(0..1_000)));
    let paths = [logs.folder.path().to_owned()];
    let (summary, _) = logs.read_paths(&paths).await.unwrap();
    assert!(summary.failures.is_empty());
    logs.store.assert_holds(&[("a.log.gz", 0, &lines(0..2_000)), ("a.log.gz", 1, &lines(0..1_000))]);
}

#[test]
fn a_named_stream_goes_on_where_its_name_and_head_are_known() {
    let head = lines(0..2_000).into_bytes();
    let mut store = Store::default();
    let mut catalogue = Catalogue::new(store.ledger());
    let (source, committed) = catalogue.resolve_stream(Some("fw"), "stdin", &head[..10]);
    assert!(committed.is_empty());
    store.commit(RawChunk {
        source: std::sync::Arc::clone(&source),
        first_byte: 0,
        bytes: head[..100].to_vec().into(),
        content_sha256: <sha2::Sha256 as sha2::Digest>::digest(&head[..100]).into(),
        reference_time: 0,
        piece: None,
        open: false,
    });
    let mut catalogue = Catalogue::new(store.ledger());
    assert_eq!(catalogue.stream_head_bytes(Some("fw")), 10);
    let (again, committed) = catalogue.resolve_stream(Some("fw"), "stdin", &head);
    assert_eq!((again.id, &committed[..]), (source.id, &[(0, 100)][..]));
    let (other_head, committed) = catalogue.resolve_stream(Some("fw"), "stdin", b"other");
    assert_eq!((other_head.generation, committed.len()), (1, 0));
    let (one, other) =
        (catalogue.resolve_stream(None, "stdin", &head), catalogue.resolve_stream(None, "stdin", &head));
    assert_ne!(one.0.id, other.0.id);
}
