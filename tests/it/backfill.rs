//! Backfill: objects of a bucket as sources, shared by readers that know nothing of each other.
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::servers::{Faults, Redis, S3Server, wait_until};
use super::support::{Counts, Ended, NO_TYPE, Site, gzip, numbered_lines};

/// What a prefix of the bucket holds, decompressed: (key below it, bytes).
type Contents = Vec<(&'static str, Vec<u8>)>;

fn put(server: &S3Server, key: &str, bytes: impl AsRef<[u8]>) {
    let path = server.at(key);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A plain, a gzip, a zstd and a large object; blanks, rejects, lines longer than a part, no newline at the end.
fn put_logs(server: &S3Server, lines_of_large: usize) -> Contents {
    let mut large = numbered_lines(0, lines_of_large / 2).into_bytes();
    large.extend_from_slice(&[b'x'; 150_000]);
    large.extend_from_slice(format!("\n\n{NO_TYPE}\n").as_bytes());
    large.extend_from_slice(numbered_lines(lines_of_large / 2, lines_of_large / 2).as_bytes());
    large.extend_from_slice(b"the last line has no newline");
    let contents = vec![
        ("2024/01/15/large.log", large),
        ("2024/01/15/plain.log", numbered_lines(1_000_000, 3000).into_bytes()),
        ("2024/01/16/a.log.gz", numbered_lines(2_000_000, 4000).into_bytes()),
        ("2024/01/16/b.log.zst", numbered_lines(3_000_000, 4000).into_bytes()),
    ];
    for (key, bytes) in &contents {
        let stored = match key.rsplit('.').next() {
            Some("gz") => gzip(bytes),
            Some("zst") => zstd::encode_all(&bytes[..], 1).unwrap(),
            _ => bytes.clone(),
        };
        put(server, &format!("fw/{key}"), stored);
    }
    put(server, "fw/2024/01/16/readme.txt", "not a log\n");
    contents
}

fn num_lines(contents: &Contents) -> u64 {
    let of_one = |bytes: &[u8]| {
        let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
        newlines + usize::from(!bytes.ends_with(b"\n"))
    };
    contents.iter().map(|(_, bytes)| of_one(bytes) as u64).sum()
}

/// The archive gives back what the bucket has.
fn expect_restored(site: &Site, contents: &Contents) {
    let name = |key: &str| {
        key.trim_end_matches(".gz").trim_end_matches(".zst").trim_start_matches("2024/01/").to_owned()
    };
    let expected: Vec<_> = contents.iter().map(|(key, bytes)| (name(key), bytes)).collect();
    site.expect_restored(&expected);
}

/// Lines that the ledger has, of sources that have gaps too.
fn lines_so_far(site: &Site) -> u64 {
    let ended = site.end(&["verify", "--output", "json"]);
    let reports: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
    let sources = reports[0]["sources"].as_array().map_or(&[][..], Vec::as_slice);
    sources.iter().map(|source| source["lines"].as_u64().unwrap()).sum()
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.expect_code(0).stdout).unwrap()
}

#[test]
fn a_backfill_shared_by_readers_of_which_one_is_killed_is_complete_and_repeating_it_ships_nothing() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "archive");
    let contents = put_logs(&server, 60_000);
    let (redis, stream) = (Redis::shared(), Redis::unique("backfill"));
    let url = redis.url();
    let via = ["--via", url.as_str(), "--stream", stream.as_str()];
    let prefix = server.url("fw/");
    let process = || site.start(&[&["process", "--takeover", "2s"], &via[..]].concat());
    let processors = [process(), process()];
    let read = |shard: &str, more: &[&str]| {
        let flags = ["--split-size", "100KiB", "--chunk-size", "32KiB", "--output", "json", "--quiet"];
        let share = ["read", &prefix, "--shard", shard];
        site.start(&[&share[..], &flags, &via, more].concat())
    };
    // the first is killed as soon as something of it is there; the second goes on
    let (killed, other) = (read("1/2", &["--max-queue-bytes", "64KiB"]), read("2/2", &[]));
    wait_until("something is committed", || lines_so_far(&site) > 0);
    assert!(killed.kill_after(Duration::ZERO).is_none(), "it ended before");
    other.wait().expect_code(0);
    assert!(lines_so_far(&site) < num_lines(&contents), "the share of the first is lacking");

    let shipped = ["1/2", "2/2"].map(|shard| json(read(shard, &[]).wait())["chunks"].as_u64().unwrap());
    assert!(shipped[0] > 0 && shipped[1] == 0, "{shipped:?}");
    assert_eq!(site.committed_lines(), num_lines(&contents));
    let gets = || server.happened().gets_of_logs.load(Ordering::Relaxed);
    for shard in ["1/2", "2/2", "1/1"] {
        let again = json(read(shard, &[]).wait());
        assert_eq!((&again["chunks"], again["failures"].as_array().unwrap().len()), (&Value::from(0), 0));
    }
    for processor in processors {
        processor.signal("TERM");
        processor.wait().expect_code(143);
    }
    site.verify(&[]);
    site.verify(&[&prefix]);
    let before = gets();
    assert_eq!(site.run(&[&prefix]).lines, 0);
    assert_eq!((before > 0, gets() - before), (true, 0), "none of the objects is asked for");
    let rows = num_lines(&contents) - 4;
    assert_eq!(site.number("SELECT count(*) FROM firewall_logs"), rows);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), rows);
    assert_eq!(site.number("SELECT count(*) FROM blanks"), 1);
    expect_restored(&site, &contents);
}

#[test]
fn shares_of_one_bucket_and_of_one_folder_add_up_to_all_of_it() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "unused");
    let contents = put_logs(&server, 6000);
    site.generate(6, 200);
    let prefix = server.url("fw");
    let flags = ["--into", "archive", "--split-size", "50KiB", "--chunk-size", "16KiB"];
    let run = |shard: &str| site.run(&[&["logs", prefix.as_str(), "--shard", shard], &flags[..]].concat());
    let shares = ["1/3", "2/3", "3/3"].map(|shard| run(shard).lines);
    assert!(shares.iter().all(|lines| *lines > 0), "{shares:?}");
    assert_eq!(shares.iter().sum::<u64>(), num_lines(&contents) + 6 * 200);
    // in other parts, or in one, there is nothing left
    for split_size in ["7KiB", "1GiB"] {
        let flags = ["--into", "archive", "--split-size", split_size];
        assert_eq!(site.run(&[&["logs", prefix.as_str()], &flags[..]].concat()).lines, 0);
    }
    let text = site.ok(&[&["run", "logs", prefix.as_str(), "--shard", "2/3"], &flags[..]].concat());
    assert!(text.contains("nothing new: all of shard 2/3 is in archive already"), "{text}");
    site.ok(&["verify", "--count", "--content", "--into", "archive", "logs", &prefix]);
    // and SQL over archive and bucket counts each line once
    let raw = format!("raw:{prefix}");
    let sql = "SELECT count(*) FROM firewall_logs";
    let both = site.ok(&["query", "--output", "csv", "--from", "archive", "--from", &raw, sql]);
    assert_eq!(both, site.ok(&["query", "--output", "csv", "--from", "archive", sql]));
}

#[test]
fn an_object_that_is_overwritten_is_a_new_generation_and_one_that_is_not_put_again_is_none() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "unused");
    site.set("PIPELINE_INTO", "archive");
    site.set("PIPELINE_ARCHIVE", "archive");
    put(&server, "fw/a.log", numbered_lines(0, 10));
    put(&server, "fw/odd name+.txt", numbered_lines(10, 10));
    let named = server.url("fw/odd name+.txt");
    assert_eq!(site.run(&[&server.url("fw/"), &named]).lines, 20);
    assert_eq!(site.run(&[&server.url("fw/*")]).lines, 0);
    put(&server, "fw/a.log", numbered_lines(20, 30));
    assert_eq!(site.run(&[&server.url("fw/")]).lines, 30);
    assert_eq!(site.run(&[&server.url("fw/"), &named]).lines, 0);
    site.expect_restored(&[
        ("a.log", numbered_lines(0, 10)),
        ("a.log.generation-1", numbered_lines(20, 30)),
        ("odd name+.txt", numbered_lines(10, 10)),
    ]);
    // of what is lacking, verify tells
    put(&server, "fw/a.log", numbered_lines(50, 1));
    put(&server, "fw/new.log.gz", gzip(numbered_lines(51, 1).as_bytes()));
    let errors = site.end(&["verify", &server.url("fw/")]).expect_code(1).errors();
    let not_stored = |key: &str| format!("{}: nothing of it is stored; run on it", server.url(key));
    assert_eq!(errors, ["fw/a.log", "fw/new.log.gz"].map(not_stored));
}

#[test]
fn one_object_that_cannot_be_read_is_named_and_the_others_are_stored() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "unused");
    put(&server, "fw/a.log", numbered_lines(0, 10));
    let stored = gzip(numbered_lines(10, 20_000).as_bytes());
    put(&server, "fw/b.log.gz", &stored[..stored.len() / 2]);
    put(&server, "fw/c.log", numbered_lines(30_000, 10));
    let ended = site.end(&["run", "--output", "json", "--into", "archive", &server.url("fw")]).expect_code(1);
    let [error] = &ended.errors()[..] else { panic!("{}", ended.stderr) };
    assert!(error.starts_with("s3://logs/fw/b.log.gz is damaged gzip near byte"), "{error}");
    assert!(Counts::of(&ended.stdout).lines > 20);
    // replaced by a good copy, it is another content
    put(&server, "fw/b.log.gz", stored);
    assert_eq!(site.run(&["--into", "archive", &server.url("fw")]).lines, 20_000);
}

#[test]
fn a_bucket_that_cannot_be_listed_or_has_nothing_says_so_before_anything_is_made() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "unused");
    put(&server, "fw/a.txt", "x\n");
    for (code, path, expected) in [
        (
            1,
            "s3://logs/fw/",
            "nothing to read: no object matches s3://logs/fw/; check the bucket and the path",
        ),
        (1, "s3://logs/fw/*.log", "nothing to read: no object matches s3://logs/fw/*.log"),
        (3, "s3://nowhere/fw/", "nothing to read: cannot list s3://nowhere/fw/: there is no such bucket"),
        (3, "s3:///fw", "nothing to read: s3:///: names no bucket"),
        (3, "s3://key:word@logs/fw", "put them into the environment"),
    ] {
        let error = site.error(code, &["run", "--into", "archive", path]);
        assert!(error.contains(expected) && !error.contains("word@"), "{error}");
    }
    for (flags, expected) in [
        (["s3://logs/fw/", "--watch", "--quiet"], "s3://logs/fw/ cannot be watched"),
        (["--watch", "--shard", "1/2"], "--shard 1/2 deals out what there is"),
        (["s3://logs/fw/", "--shard", "3/2"], "I/N is expected, such as 1/4"),
    ] {
        let error = site.error(2, &[&["run", "--into", "archive"], &flags[..]].concat());
        assert!(error.contains(expected), "{error}");
    }
    site.set("AWS_SECRET_ACCESS_KEY", "another");
    let error = site.error(3, &["run", "--into", "archive", "s3://logs/fw/"]);
    assert!(error.contains("access is denied"), "{error}");
    site.set("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    site.set("AWS_MAX_ATTEMPTS", "1");
    let error = site.error(4, &["run", "--into", "archive", "s3://logs/fw/"]);
    assert!(error.contains("storage does not answer"), "{error}");
    assert!(!site.at("archive").exists());
}

#[test]
fn a_bucket_that_gives_no_answer_is_exit_code_4_whoever_reads_it_and_whatever_else_is_read() {
    let (server, redis) = (S3Server::start(), Redis::shared());
    let mut site = Site::new();
    server.serve(&mut site, "unused");
    site.set("PIPELINE_INTO", "archive");
    put(&server, "fw/a.log", numbered_lines(0, 10));
    site.write("logs/b.log", numbered_lines(10, 10));
    let (bucket, redis) = (server.url("fw/"), redis.url());
    assert_eq!(site.run(&[&bucket, "logs"]).lines, 20);
    let commands: [&[&str]; 6] = [
        &["read", "--via", &redis, &bucket],
        &["read", "--via", &redis, "missing.log", &bucket],
        &["run", &bucket, "logs"],
        &["verify", &bucket],
        &["verify", &bucket, "logs"],
        &["verify", "--repair", &bucket, "missing.log"],
    ];
    site.set("AWS_MAX_ATTEMPTS", "1");
    for endpoint in ["http://127.0.0.1:1".to_owned(), server.endpoint()] {
        site.set("AWS_ENDPOINT_URL", endpoint);
        server.fail(Faults { throttled: 1000, ..Faults::default() }, 1);
        for command in commands {
            let ended = site.end(command).expect_code(4);
            assert!(
                ended.stderr.contains("cannot list s3://logs/fw/: storage"),
                "{command:?}: {}",
                ended.stderr
            );
        }
    }
    server.fail(Faults::default(), 0);
    site.ok(&["verify", &bucket, "logs"]);
}
