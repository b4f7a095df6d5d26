//! A TCP proxy on loopback that breaks connections when told to.
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::process::free_port;
use super::wait_until;

/// Stands before a server.
#[derive(Debug)]
pub(crate) struct Proxy {
    port: u16,
    target_port: u16,
    /// Both ends of all connections there ever were.
    ends: Arc<Mutex<Vec<TcpStream>>>,
    listening: Option<Listening>,
}

#[derive(Debug)]
struct Listening {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Proxy {
    pub(crate) fn start(target_port: u16) -> Proxy {
        let mut proxy = Proxy { port: free_port(), target_port, ends: Arc::default(), listening: None };
        proxy.refuse(false);
        proxy
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections that there are. New ones are taken.
    pub(crate) fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            // it may be closed already
            let _shut = end.shutdown(Shutdown::Both);
        }
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
                let (ends, target) = (Arc::clone(&self.ends), self.target_port);
                let thread = thread::spawn({
                    let ended = Arc::clone(&ended);
                    move || listen(&listener, target, &ends, &ended)
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

fn listen(listener: &TcpListener, target: u16, ends: &Mutex<Vec<TcpStream>>, ended: &AtomicBool) {
    for client in listener.incoming().map_while(Result::ok) {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        // a client whose server is gone loses its connection
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            ends.lock().unwrap().push(clone(stream));
        }
        let (client_again, server_again) = (clone(&client), clone(&server));
        thread::spawn(move || copy(&client, &server));
        thread::spawn(move || copy(&server_again, &client_again));
    }
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    // however it ends, the other side learns that nothing more comes
    let _copied = io::copy(&mut from, &mut to);
    let _shut = to.shutdown(Shutdown::Write);
}
