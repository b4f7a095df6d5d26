//! A TCP proxy on loopback that breaks connections when told to.
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::process::free_port;
use super::wait_until;

/// Stands before a server.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    target: (String, u16),
    connections: Arc<Connections>,
    listening: Option<Listening>,
}

#[derive(Debug, Default)]
struct Connections {
    /// Both ends of all that there ever were.
    ends: Mutex<Vec<TcpStream>>,
    /// After so many more bytes from the server they are broken; 0: not by that.
    bytes_left: Mutex<usize>,
    /// How often those that there were fell silent.
    silences: AtomicU64,
}

#[derive(Debug)]
struct Listening {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(target_port: u16) -> Proxy {
        Self::start_to("127.0.0.1", target_port)
    }

    /// Before a server of another address.
    pub(crate) fn start_to(address: &str, target_port: u16) -> Proxy {
        let target = (address.to_owned(), target_port);
        let mut proxy = Proxy { port: free_port(), target, connections: Arc::default(), listening: None };
        proxy.refuse(false);
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections that there are. New ones are taken.
    pub(crate) fn cut(&self) {
        self.connections.cut();
    }

    /// From here on nothing comes from the server over the connections that there are; they stay open.
    pub(crate) fn silence(&self) {
        self.connections.silences.fetch_add(1, Ordering::SeqCst);
    }

    /// Breaks all connections when so many bytes more have come from the server: in the middle of an answer.
    pub(crate) fn cut_after(&self, bytes: usize) {
        *self.connections.bytes_left.lock().unwrap() = bytes;
    }

    /// Whether that has happened.
    pub(crate) fn has_cut(&self) -> bool {
        *self.connections.bytes_left.lock().unwrap() == 0
    }

    /// Whether new connections are refused, as if no server ran. Those that there are go on.
    pub(crate) fn refuse(&mut self, refuse: bool) {
        match (refuse, self.listening.take()) {
            (true, Some(Listening { ended, thread })) => {
                ended.store(true, Ordering::SeqCst);
                // the thread waits for a connection: here it is
                let _woken = TcpStream::connect(("127.0.0.1", self.port));
                thread.join().unwrap();
            }
            (false, None) => {
                // another test process may just be looking whether the port is free
                let mut listener = None;
                wait_until("the proxy's port is free again", || {
                    listener = TcpListener::bind(("127.0.0.1", self.port)).ok();
                    listener.is_some()
                });
                let listener = listener.unwrap();
                let ended = Arc::new(AtomicBool::new(false));
                let (connections, target) = (Arc::clone(&self.connections), self.target.clone());
                let thread = thread::spawn({
                    let ended = Arc::clone(&ended);
                    move || listen(&listener, &target, &connections, &ended)
                });
                self.listening = Some(Listening { ended, thread });
            }
            (_, unchanged) => self.listening = unchanged,
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse(true);
        self.cut();
    }
}

impl Connections {
    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            // it may be closed already
            let _shut = end.shutdown(Shutdown::Both);
        }
    }

    /// How many of `bytes` that come from the server pass before all is cut.
    fn pass(&self, bytes: usize) -> Option<usize> {
        let mut left = self.bytes_left.lock().unwrap();
        if *left == 0 || bytes < *left {
            *left = left.saturating_sub(bytes);
            return None;
        }
        Some(std::mem::take(&mut *left))
    }
}

fn listen(
    listener: &TcpListener,
    (address, port): &(String, u16),
    connections: &Arc<Connections>,
    ended: &AtomicBool,
) {
    // one that broke before it was taken is no reason to take no more
    for client in listener.incoming().filter_map(Result::ok) {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        // a client whose server is gone loses its connection
        let Ok(server) = TcpStream::connect((address.as_str(), *port)) else { continue };
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            connections.ends.lock().unwrap().push(clone(stream));
        }
        let (client_again, server_again) = (clone(&client), clone(&server));
        let connections = Arc::clone(connections);
        thread::spawn(move || {
            let _copied = io::copy(&mut &client, &mut &server);
            let _shut = server.shutdown(Shutdown::Write);
        });
        thread::spawn(move || {
            let _copied = copy_back(&server_again, &client_again, &connections);
            let _shut = client_again.shutdown(Shutdown::Write);
        });
    }
}

/// However it ends, the client learns that nothing more comes.
fn copy_back(mut server: &TcpStream, mut client: &TcpStream, connections: &Connections) -> io::Result<()> {
    let mut buffer = [0; 8 << 10];
    let silences = connections.silences.load(Ordering::SeqCst);
    loop {
        let came = server.read(&mut buffer)?;
        if came > 0 && connections.silences.load(Ordering::SeqCst) > silences {
            continue;
        }
        match connections.pass(came) {
            None if came == 0 => return Ok(()),
            None => client.write_all(&buffer[..came])?,
            Some(last) => {
                client.write_all(&buffer[..last])?;
                connections.cut();
                return Ok(());
            }
        }
    }
}
