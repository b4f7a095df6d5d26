//! What systemd is told of a process: a socket of the test's stands for systemd's.
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::servers::{Postgres, Redis};
use super::support::Site;

struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    /// Commands of this site are told of it from here on.
    fn of(site: &mut Site) -> Self {
        let path = site.at("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        site.set("NOTIFY_SOCKET", path.to_str().unwrap());
        Self { socket }
    }

    /// The next thing that it is told.
    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let len = self.socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).trim_end().to_owned()
    }

    /// The next thing that is no sign of life.
    fn told_but_alive(&self) -> String {
        loop {
            let told = self.told();
            if told != "WATCHDOG=1" {
                return told;
            }
        }
    }
}

#[test]
fn a_receiver_says_when_it_listens_and_when_it_stops() {
    let mut site = Site::new();
    let manager = Manager::of(&mut site);
    let serving = site.start(&["serve", "--listen", "127.0.0.1:0", "--database", "sqlite://state.db"]);
    assert_eq!(manager.told(), "READY=1");
    serving.signal("TERM");
    assert_eq!(manager.told(), "STOPPING=1");
    serving.wait().expect_code(143);
}

#[test]
fn a_processor_says_that_it_is_alive_while_it_has_nothing_to_do_and_while_postgres_is_away() {
    let mut site = Site::new();
    let manager = Manager::of(&mut site);
    site.set("WATCHDOG_USEC", "2000000");
    let (redis, mut postgres) = (Redis::start(), Postgres::start());
    let database = postgres.database();
    let (via, into) = (redis.url(), database.url());
    let processing = site.start(&["process", "--via", &via, "--into", &into]);
    assert_eq!(manager.told(), "READY=1");
    for _ in 0..2 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    postgres.kill();
    // the reader asks what is committed, and the processor asks Postgres again and again
    site.generate(1, 100);
    let reading = site.start(&["read", "logs", "--via", &via]);
    assert_eq!(manager.told_but_alive(), "READY=1", "of the reader");
    for _ in 0..4 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    postgres.restart();
    reading.wait().expect_code(0);
    processing.signal("TERM");
    assert_eq!(manager.told_but_alive(), "STOPPING=1");
    processing.wait().expect_code(143);
}
