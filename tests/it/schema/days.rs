//! Leaves by day, made while others load and read; their indexes, built whatever is killed.
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use pipeline::warehouse::{IndexReport, Leaves, build_indexes, ensure_days};

use super::{TINY, built_in, connect, make, types};
use crate::servers::Postgres;

const DAY: i32 = 19_737;

fn insert(into: &str, time: &str) -> String {
    format!("INSERT INTO {into} (timestamp, chunk_id, line, form) VALUES ('{time}', 1, 2, 3);")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_loaders_make_each_day_once_while_others_load_and_read() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[TINY])).await.unwrap();
    // rows that came when their day had no table
    let waiting: String =
        (10..30).map(|day| insert("tiny_logs", &format!("2024-01-{day}T23:59:59.9Z"))).collect();
    database.sql(&waiting);
    let stop = Arc::new(AtomicBool::new(false));
    let others = (0..3).map(|number| {
        let (url, stop) = (database.url(), Arc::clone(&stop));
        tokio::spawn(async move {
            let client = connect(&url).await;
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) {
                let sql = match number {
                    0 => "SELECT count(*) FROM tiny_logs".to_owned(),
                    // into the default leaf, and through the partitioned table
                    1 => {
                        insert("tiny_logs_default", "1999-01-01T00:00Z")
                            + &insert("tiny_logs", "2024-01-12T00:00Z")
                    }
                    _ => {
                        "BEGIN; LOCK TABLE ONLY tiny_logs IN ROW EXCLUSIVE MODE;".to_owned()
                            + &insert("tiny_logs", "2024-01-13T00:00Z")
                            + "ANALYZE tiny_logs_default; COMMIT"
                    }
                };
                // a row that was on its way to the default leaf when its day came: to be sent again
                if let Err(error) = client.batch_execute(&sql).await {
                    assert_eq!(error.code().map(|code| code.code()), Some("23514"), "{error:?}");
                    client.batch_execute("ROLLBACK").await.unwrap();
                }
                rounds += 1;
            }
            rounds
        })
    });
    let others: Vec<_> = others.collect();
    let loaders = (0..8).map(|number| {
        let url = database.url();
        tokio::spawn(async move {
            let client = connect(&url).await;
            for day in (DAY - 5..DAY + 15).skip(number) {
                let ready =
                    ensure_days(&client, "public", "tiny_logs", &[day, DAY + 20]).await.unwrap().ready;
                assert_eq!(ready.len(), 2);
            }
        })
    });
    for loader in join_all(loaders).await {
        loader.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    for rounds in join_all(others).await {
        assert!(rounds.unwrap() > 0);
    }
    assert_eq!(database.sql("SELECT count(*) FROM pg_inherits"), "22", "20 days, one more, the default");
    let left = "SELECT count(*) FROM tiny_logs_default WHERE timestamp >= '2000-01-01'";
    assert_eq!(database.sql(left), "0");
    let moved = "SELECT count(*) FROM tiny_logs WHERE timestamp::text LIKE '%59.9%'; SELECT count(*) FROM tiny_logs_20240129";
    assert_eq!(database.sql(moved), "20\n1");
    let bounds = "SET TimeZone = 'UTC'; SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'tiny_logs_20240115'";
    assert_eq!(
        database.sql(bounds),
        "FOR VALUES FROM ('2024-01-15 00:00:00+00') TO ('2024-01-16 00:00:00+00')"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_that_a_long_reader_holds_up_waits_in_the_default_leaf() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[TINY])).await.unwrap();
    let (reader, loader) = (connect(&database.url()).await, connect(&database.url()).await);
    reader.batch_execute("BEGIN; SELECT count(*) FROM tiny_logs").await.unwrap();
    let ready = ensure_days(&loader, "public", "tiny_logs", &[DAY]).await.unwrap().ready;
    assert!(ready.is_empty());
    loader.batch_execute(&insert("tiny_logs_default", "2024-01-15T00:00Z")).await.unwrap();
    reader.batch_execute("COMMIT").await.unwrap();
    let ready = ensure_days(&loader, "public", "tiny_logs", &[DAY]).await.unwrap().ready;
    assert_eq!(ready[&DAY], "tiny_logs_20240115");
    assert_eq!(database.sql("SELECT tableoid::regclass FROM tiny_logs"), "tiny_logs_20240115");
    // in nobody's way any more
    assert_eq!(ensure_days(&loader, "public", "tiny_logs", &[DAY]).await.unwrap().ready, ready);
    assert_eq!(ensure_days(&loader, "public", "tiny_logs", &[]).await.unwrap().ready.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_the_way_of_a_day_stays_and_is_in_no_other_days_way() {
    let database = Postgres::shared().database();
    make(&database, "public", &types(&[TINY])).await.unwrap();
    database.sql("CREATE TABLE tiny_logs_20240115 (mine text)");
    let client = connect(&database.url()).await;
    let ensured = ensure_days(&client, "public", "tiny_logs", &[DAY, DAY + 1]).await.unwrap();
    assert_eq!(ensured.ready, [(DAY + 1, "tiny_logs_20240116".to_owned())].into());
    assert_eq!(ensured.in_the_way, ["tiny_logs_20240115"]);
    assert_eq!(database.sql("SELECT count(mine) FROM tiny_logs_20240115"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_come_to_leaves_and_half_built_ones_are_built_again() {
    let database = Postgres::shared().database();
    let types = built_in();
    make(&database, "public", &types).await.unwrap();
    let client = connect(&database.url()).await;
    for table in ["firewall_logs", "dns_logs"] {
        ensure_days(&client, "public", table, &[DAY, DAY + 1]).await.unwrap();
    }
    // a concurrent build of a unique index that fails leaves an invalid one, as a killed one does
    database.sql(
        &insert("dns_logs", "2024-01-15T00:00Z")
            .replace("form)", "form, query_domain)")
            .replace("3)", "3, 'a')")
            .repeat(2),
    );
    let concurrent = "CREATE UNIQUE INDEX CONCURRENTLY dns_logs_20240115_query_domain_idx ON dns_logs_20240115 (query_domain)";
    database.try_sql(concurrent).unwrap_err();
    let invalid = "SELECT count(*) FROM pg_index WHERE NOT indisvalid";
    assert_eq!(database.sql(invalid), "1");
    let of_day = ["auth_logs", "dns_logs", "firewall_logs"].map(|table| format!("{table}_20240115"));
    let named = ["firewall_logs_20240116".to_owned()];
    let builds = join_all([&of_day[..], &of_day[..], &named[..]].map(|names| {
        let (url, types) = (database.url(), types.clone());
        async move {
            let clients = [connect(&url).await, connect(&url).await];
            build_indexes(&clients, "public", &types, Leaves::Named(names)).await.unwrap()
        }
    }));
    let builds = builds.await;
    assert!(builds.iter().any(|report| report.built.contains(&named[0])));
    let left =
        build_indexes(slice::from_ref(&client), "public", &types, Leaves::Named(&of_day)).await.unwrap();
    // two builders may each leave the rest of a leaf to the other, and say so
    let said = |leaf: &String| builds[..2].iter().all(|report| report.busy.contains(leaf));
    assert!(left.built.iter().all(said), "{left:?} was left in silence: {builds:?}");
    assert_eq!(left.busy, [""; 0], "nobody else is at the leaves any more");
    let report =
        build_indexes(slice::from_ref(&client), "public", &types, Leaves::Named(&of_day)).await.unwrap();
    assert_eq!(report, IndexReport::default(), "nothing is left to do");
    assert_eq!(database.sql(invalid), "0");
    let of_day = "SELECT string_agg(indexname, ' ' ORDER BY indexname) FROM pg_indexes WHERE tablename = 'dns_logs_20240115'";
    assert_eq!(
        database.sql(of_day),
        "dns_logs_20240115_client_ip_idx dns_logs_20240115_query_domain_idx dns_logs_20240115_timestamp_idx"
    );
    let of_next_day = "SELECT count(*) FROM pg_indexes WHERE tablename = 'dns_logs_20240116'";
    assert_eq!(database.sql(of_next_day), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_a_loader_is_at_is_left_for_later() {
    let database = Postgres::shared().database();
    let types = types(&[TINY]);
    make(&database, "public", &types).await.unwrap();
    let (loader, builder) = (connect(&database.url()).await, connect(&database.url()).await);
    ensure_days(&loader, "public", "tiny_logs", &[DAY, DAY + 1]).await.unwrap();
    loader
        .batch_execute(&format!("BEGIN; {}", insert("tiny_logs_20240115", "2024-01-15T00:00Z")))
        .await
        .unwrap();
    let report = build_indexes(slice::from_ref(&builder), "public", &types, Leaves::All).await.unwrap();
    assert_eq!(report.busy, ["tiny_logs_20240115"]);
    assert_eq!(report.built, ["tiny_logs_20240116", "tiny_logs_default"]);
    loader.batch_execute("COMMIT").await.unwrap();
    let report = build_indexes(slice::from_ref(&builder), "public", &types, Leaves::All).await.unwrap();
    assert_eq!((report.busy.len(), report.built), (0, vec!["tiny_logs_20240115".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_too_long_for_a_tree_gets_its_leaf_a_hash() {
    let database = Postgres::shared().database();
    let types = types(&[TINY]);
    make(&database, "public", &types).await.unwrap();
    // pglz cannot make it small
    database.sql(
        "INSERT INTO tiny_logs SELECT '1999-01-01', string_agg(md5(n::text), ''), 1, 2, 3 FROM generate_series(1, 500) AS n",
    );
    let client = connect(&database.url()).await;
    build_indexes(slice::from_ref(&client), "public", &types, Leaves::All).await.unwrap();
    let method =
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'tiny_logs_default' AND indexname LIKE '%user%'";
    let definition = database.sql(method);
    assert!(definition.ends_with("USING hash (\"user\")"), "{definition}");
}
