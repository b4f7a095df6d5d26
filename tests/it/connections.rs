//! What URLs, passwords and certificates do against real servers, and that no error shows a password.
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use pipeline::client::{ClientError, PgConfig, RedisConfig, RedisConnection};

use crate::servers::{Postgres, Proxy, Redis, RedisOptions, wait_until};

const ANSWER: Option<Duration> = Some(Duration::from_secs(10));

#[track_caller]
fn refused<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => panic!("it was not refused"),
        Err(error) => {
            assert!(!error.is_retriable());
            words(&error)
        }
    }
}

#[track_caller]
fn unreachable<T>(result: Result<T, ClientError>) -> String {
    match result {
        Ok(_) => panic!("it was reached"),
        Err(error) => {
            assert!(error.is_retriable(), "{}", words(&error));
            words(&error)
        }
    }
}

/// The error and its causes, and its `Debug`: what may be printed anywhere.
fn words(error: &ClientError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    assert!(!format!("{text} {error:?}").contains("hunter2"), "{text} {error:?}");
    text
}

#[tokio::test]
async fn postgres_is_connected_to_by_url() {
    let database = Postgres::shared().database();
    let config = PgConfig::parse(&database.url()).unwrap();
    assert!(!format!("{config} {config:?}").contains(":pipeline@"), "{config} {config:?}");
    let client = config.connect_at_start().await.unwrap();
    let row = client.query_one("SELECT current_database(), current_setting('application_name')", &[]);
    let row = row.await.unwrap();
    assert_eq!(row.get::<_, &str>(0), database.name());
    assert_eq!(row.get::<_, &str>(1), "pipeline");
}

#[tokio::test]
async fn what_is_wrong_with_postgres_says_who_has_to_change_it() {
    let port = Postgres::shared().port();
    let connect = async |url: String| PgConfig::parse(&url).unwrap().connect().await;
    let error = refused(connect(format!("postgres://pipeline:hunter2@127.0.0.1:{port}/postgres")).await);
    assert!(error.contains("PGPASSWORD") && error.contains("authentication failed"), "{error}");
    let error = refused(connect(format!("postgres://pipeline@127.0.0.1:{port}/postgres")).await);
    assert!(error.contains("PGPASSWORD"), "{error}");
    let error = refused(connect(format!("postgres://pipeline:pipeline@127.0.0.1:{port}/none")).await);
    assert!(error.contains("\"none\" does not exist"), "{error}");
    let error = refused(
        connect(format!("postgres://pipeline:pipeline@127.0.0.1:{port}/postgres?sslmode=require")).await,
    );
    assert!(error.contains("sslmode"), "{error}");
    let error = unreachable(connect("postgres://pipeline:hunter2@127.0.0.1:1/postgres".to_owned()).await);
    assert!(error.starts_with("postgres at 127.0.0.1:1/postgres takes no connection"), "{error}");
    assert!(error.ends_with("Connection refused (os error 111)"), "{error}");
}

#[tokio::test]
async fn a_database_that_takes_no_connections_for_now_can_be_tried_again() {
    let server = Postgres::shared();
    let (database, other) = (server.database(), server.database());
    let client = PgConfig::parse(&other.url()).unwrap().connect().await.unwrap();
    client
        .batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", database.name()))
        .await
        .unwrap();
    let error = unreachable(PgConfig::parse(&database.url()).unwrap().connect().await);
    assert!(error.contains("not currently accepting connections"), "{error}");
}

#[test]
fn a_wrong_url_is_refused_before_anything_is_connected() {
    for (url, reason) in [
        ("postgres://u:hunter2@host/db?sslmode=allow", "sslmode=allow is not known"),
        ("postgres://u:hunter2@host/db?sslmode=verify-ca", "sslrootcert"),
        ("postgres://u:hunter2@host/db?sslrootcert=/none", "cannot be read"),
        ("postgres://u:hunter2@host/db?colour=red", "colour"),
        ("postgres://u:hunter2@host:port/db", "port"),
        ("postgres://u:hunter2@/db", "names no host"),
        ("postgres://u:hun/ter2@hunter2/db@host", "%2F"),
    ] {
        let error = PgConfig::parse(url).unwrap_err();
        assert!(matches!(error, ClientError::BadUrl { .. }));
        let error = words(&error);
        assert!(error.contains(reason), "{url}: {error}");
    }
    for (url, reason) in [
        ("redis://:hunter2@host:port", "Redis URL"),
        ("http://:hunter2@host", "Redis URL"),
        ("redis://:hunter2@host/db", "redis://host:port/database"),
        ("rediss://:hunter2@host#insecure", "sslrootcert"),
        ("redis://:hunter2@host?sslrootcert=ca.crt", "rediss://"),
        ("rediss://:hunter2@host?sslrootcert=/none", "cannot be read"),
    ] {
        let error = words(&RedisConfig::parse(url).unwrap_err());
        assert!(error.contains(reason), "{url}: {error}");
    }
}

#[tokio::test]
async fn sslmode_verifies_what_libpq_verifies() {
    let postgres = Postgres::start_with_tls();
    let other = Redis::start_with(RedisOptions { tls: true, ..Default::default() });
    let (ours, theirs) = (postgres.at("ca.crt"), other.at("ca.crt"));
    let (ours, theirs) = (ours.display(), theirs.display());
    let connect = async |host: &str, parameters: String| {
        let port = postgres.port();
        let url =
            format!("postgres://pipeline:pipeline@{host}:{port}/postgres?hostaddr=127.0.0.1&{parameters}");
        let client = PgConfig::parse(&url).unwrap().connect().await?;
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        Ok(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0))
    };
    assert!(!connect("127.0.0.1", "sslmode=disable".to_owned()).await.unwrap());
    for encrypted in [
        String::new(),
        "sslmode=require".to_owned(),
        format!("sslmode=require&sslrootcert={ours}"),
        format!("sslmode=verify-ca&sslrootcert={ours}"),
        format!("sslmode=verify-full&sslrootcert={ours}"),
    ] {
        assert!(connect("127.0.0.1", encrypted.clone()).await.unwrap(), "{encrypted}");
        assert!(connect("localhost", encrypted.clone()).await.unwrap(), "{encrypted}");
    }
    // not in the certificate
    let other_name = "elsewhere.example";
    assert!(connect(other_name, format!("sslmode=verify-ca&sslrootcert={ours}")).await.unwrap());
    for (host, parameters) in [
        (other_name, format!("sslmode=verify-full&sslrootcert={ours}")),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={theirs}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={theirs}")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={theirs}")),
        ("127.0.0.1", "sslmode=verify-full".to_owned()),
    ] {
        let error = refused(connect(host, parameters.clone()).await);
        assert!(error.contains("sslrootcert"), "{parameters}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    postgres.signal("STOP");
    redis.signal("STOP");
    let started = Instant::now();
    let port = postgres.port();
    let silent = PgConfig::parse(&format!("postgres://u:hunter2@127.0.0.1:{port}/db")).unwrap();
    let error = unreachable(silent.connect().await);
    assert!(error.contains("no answer within 5 s"), "{error}");
    unreachable(RedisConfig::parse(&redis.url()).unwrap().connect(ANSWER).await);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    redis.signal("CONT");
    postgres.signal("CONT");
}

#[tokio::test]
async fn a_service_that_starts_late_is_waited_for() {
    let mut redis = Redis::start();
    let (config, url) = (RedisConfig::parse(&redis.url()).unwrap(), redis.url());
    redis.kill();
    let late = async {
        let refused = RedisConfig::parse(&url).unwrap().connect(ANSWER).await;
        unreachable(refused);
        tokio::task::spawn_blocking(move || {
            redis.restart();
            redis
        })
        .await
    };
    let (connected, redis) = tokio::join!(config.connect_at_start(ANSWER), late);
    connected.unwrap();
    drop(redis.unwrap());
}

#[tokio::test]
async fn redis_is_connected_to_single_or_cluster_with_password_or_tls() {
    for options in [
        RedisOptions::default(),
        RedisOptions { password: Some("hunter2"), ..Default::default() },
        RedisOptions { tls: true, password: Some("hunter2"), ..Default::default() },
        RedisOptions { cluster: true, password: Some("hunter2"), ..Default::default() },
        RedisOptions { cluster: true, tls: true, ..Default::default() },
    ] {
        let redis = Redis::start_with(options.clone());
        let config = RedisConfig::parse(&redis.url()).unwrap();
        assert!(!format!("{config} {config:?}").contains("hunter2"), "{config} {config:?}");
        let mut connection = config.connect(ANSWER).await.unwrap();
        assert_eq!(matches!(connection, RedisConnection::Cluster(_)), options.cluster);
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg("{tag}a").arg(1).ignore().cmd("INCR").arg("{tag}a");
        let (count,): (u32,) = pipe.query_async(&mut connection).await.unwrap();
        assert_eq!(count, 2);
        // longer than the driver's own limit
        let mut blocking = config.connect(None).await.unwrap();
        let started = Instant::now();
        let nothing: Option<(String, String)> =
            redis::cmd("BLPOP").arg("{tag}none").arg(1.5).query_async(&mut blocking).await.unwrap();
        assert!(nothing.is_none() && started.elapsed() > Duration::from_secs(1));
    }
}

#[tokio::test]
async fn what_is_wrong_with_redis_says_who_has_to_change_it() {
    let options = RedisOptions { password: Some("right"), ..Default::default() };
    let redis = Redis::start_with(options);
    let port = redis.port();
    let connect = async |url: String| RedisConfig::parse(&url).unwrap().connect(ANSWER).await;
    for url in [format!("redis://:hunter2@127.0.0.1:{port}"), format!("redis://127.0.0.1:{port}")] {
        let error = refused(connect(url).await);
        assert!(error.contains("REDIS_PASSWORD"), "{error}");
    }
    let error = refused(connect(format!("redis://:right@127.0.0.1:{port}/99")).await);
    assert!(error.contains("check the URL"), "{error}");
    let error = unreachable(connect("redis://:hunter2@127.0.0.1:1".to_owned()).await);
    assert!(error.starts_with("redis at 127.0.0.1:1 takes no connection"), "{error}");
    let tls = Redis::start_with(RedisOptions { tls: true, ..Default::default() });
    let error = refused(connect(format!("rediss://127.0.0.1:{}", tls.port())).await);
    assert!(error.contains("sslrootcert"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_off_in_any_of_its_first_answers_can_be_retried() {
    let redis = Redis::shared();
    let proxy = Proxy::start(redis.port());
    let config = RedisConfig::parse(&format!("redis://127.0.0.1:{}", proxy.port())).unwrap();
    let mut breaks = 0;
    loop {
        proxy.cut_after(breaks + 1);
        let connected = config.connect(ANSWER).await;
        if !proxy.has_cut() {
            connected.unwrap();
            break;
        }
        // the last byte may still have come
        if connected.is_err() {
            unreachable(connected);
        }
        breaks += 1;
    }
    assert!(breaks > 30, "{breaks} bytes are no answer to INFO");
    // what speaks another protocol will do so again
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    thread::spawn(move || listener.accept().unwrap().0.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap());
    let error = refused(RedisConfig::parse(&url).unwrap().connect(ANSWER).await);
    assert!(error.contains("check the URL"), "{error}");
}

#[tokio::test]
async fn a_lost_connection_is_an_error_that_can_be_retried() {
    let database = Postgres::shared().database();
    let port = Postgres::shared().port();
    let proxy = Proxy::start(port);
    let url = database.url().replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let client = PgConfig::parse(&url).unwrap().connect().await.unwrap();
    proxy.cut();
    let error = client.query("SELECT 1", &[]).await.unwrap_err();
    assert!(pipeline::client::postgres::is_retriable(&error), "{error}");

    let redis = Redis::shared();
    let proxy = Proxy::start(redis.port());
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let mut connection = RedisConfig::parse(&url).unwrap().connect(ANSWER).await.unwrap();
    proxy.cut();
    let error = redis::cmd("PING").query_async::<String>(&mut connection).await.unwrap_err();
    assert!(pipeline::client::redis::is_retriable(&error), "{error}");
    wait_until("the server has noticed", || !redis.cli(&["CLIENT", "LIST"]).contains("lib-name=pipeline"));
}
