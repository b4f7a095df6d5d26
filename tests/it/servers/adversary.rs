//! A web server that does what bad ones do: it cuts, lies, forgets, changes its mind, and leads in circles.
//!
//! A path says what its file is and what happens to it: `/behaviour/number/size`. The content follows from the number, so
//! a test knows it without asking.
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::super::campaign::Random;
use super::super::support::{gzip, numbered_lines};

/// Bytes written between two looks at whether the client is still there.
const BLOCK_BYTES: usize = 16 << 10;

/// Gone with the test; a connection that is open then ends with the process.
#[derive(Debug)]
pub(crate) struct Adversary {
    port: u16,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Requests by path.
    requests: Mutex<HashMap<String, u64>>,
    body_bytes: AtomicU64,
    /// The heads of all requests, to see what a client says.
    heads: Mutex<Vec<String>>,
}

/// Bytes that follow from a number.
pub(crate) fn content(number: u64, size: usize) -> Vec<u8> {
    let mut random = Random(number);
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        bytes.extend(random.below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Lines of a log, compressed where the number is odd.
pub(crate) fn log(number: u64, lines: usize) -> Vec<u8> {
    let text = numbered_lines(number as usize * 1_000_000, lines);
    if number % 2 == 1 { gzip(text.as_bytes()) } else { text.into_bytes() }
}

struct Request {
    path: String,
    range: Option<usize>,
    if_range: Option<String>,
    if_none_match: Option<String>,
    /// Counts this path's requests from 0.
    turn: u64,
}

impl Adversary {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), state) = (stream, Arc::clone(&of_thread)) else { continue };
                // a client that is killed is what this is for
                thread::spawn(move || serve(stream, &state).unwrap_or(()));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Bytes of files sent so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.state.body_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self, path: &str) -> u64 {
        self.state.requests.lock().unwrap().get(path).copied().unwrap_or_default()
    }

    /// Heads of the requests for a path.
    pub(crate) fn heads(&self, path: &str) -> Vec<String> {
        let heads = self.state.heads.lock().unwrap();
        heads.iter().filter(|head| head.starts_with(&format!("GET {path} "))).cloned().collect()
    }
}

fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let range =
            header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        let turn = {
            let mut requests = state.requests.lock().unwrap();
            let count = requests.entry(path.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let request = Request {
            path,
            range,
            if_range: header("if-range"),
            if_none_match: header("if-none-match"),
            turn,
        };
        state.heads.lock().unwrap().push(head);
        if !answer(&request, &mut writer, state)? {
            return writer.shutdown(Shutdown::Both);
        }
    }
}

/// What to send of which content.
struct Sending {
    body: Vec<u8>,
    etag: String,
    /// In place of the ETag, which is not sent then.
    modified: Option<String>,
    /// Instead of the true one.
    length: Option<usize>,
    ranges: bool,
    /// Whether a part says which one it is.
    is_placed: bool,
    /// Bytes of the body until the connection is cut.
    cut: Option<usize>,
    block_bytes: usize,
}

/// Answers one request; `false` if the connection is to be closed.
fn answer(request: &Request, out: &mut TcpStream, state: &State) -> std::io::Result<bool> {
    let path = request.path.split('?').next().unwrap();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (behaviour, number) = (parts[0], parts.get(1).and_then(|part| part.parse().ok()).unwrap_or(0_u64));
    let size = parts.get(2).and_then(|part| part.split('.').next()?.parse().ok()).unwrap_or(0);
    let mut random = Random(number.wrapping_mul(31).wrapping_add(request.turn));
    let status = |out: &mut TcpStream, status: &str, more: &str| {
        write!(out, "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n").map(|()| true)
    };
    let mut sending = Sending {
        body: match behaviour {
            "logs" => log(number, size),
            "version" | "dated" => content(number + 1_000_000 * request.turn.min(1), size),
            _ => content(number, size),
        },
        etag: format!("\"{number}\""),
        modified: None,
        length: None,
        ranges: true,
        is_placed: true,
        cut: None,
        block_bytes: BLOCK_BYTES,
    };
    let left = sending.body.len().saturating_sub(request.range.unwrap_or(0)).max(1) as u64;
    match behaviour {
        "good" => {}
        "cut" | "logs" if request.turn < 2 => sending.cut = Some(random.below(left) as usize),
        "cut" | "logs" => {}
        "forgets" => {
            sending.ranges = false;
            sending.cut = (request.turn == 0).then(|| random.below(left) as usize);
        }
        "version" => {
            sending.etag = format!("\"{number}-{}\"", request.turn.min(1));
            sending.cut = (request.turn == 0).then(|| random.below(left) as usize);
        }
        // sends the rest of whatever it has by now
        "dated" => {
            let day = 1 + request.turn.min(1);
            sending.modified = Some(format!("Mon, 0{day} Jan 2024 00:00:00 GMT"));
            sending.cut = (request.turn == 0).then_some(size / 2);
        }
        "placeless" => {
            sending.is_placed = false;
            sending.cut = (request.turn == 0).then_some(size / 2);
        }
        "short" => sending.length = Some(size / 2),
        "long" => sending.length = Some(size + 1000),
        "trickle" => sending.block_bytes = 200,
        "busy" if request.turn == 0 => return status(out, "429 Too Many Requests", "Retry-After: 0\r\n"),
        "broken" if request.turn == 0 => return status(out, "500 Internal Server Error", ""),
        "busy" | "broken" => {}
        "circle" => {
            return status(out, "302 Found", &format!("Location: /circle/{number}/{}\r\n", 1 - size.min(1)));
        }
        "moved" => return status(out, "301 Moved", &format!("Location: ../../good/{number}/{size}\r\n")),
        "inside" => return status(out, "302 Found", "Location: file:///etc/passwd\r\n"),
        _ => return status(out, "404 Not Found", ""),
    }
    send(request, sending, out, state)
}

fn send(request: &Request, sending: Sending, out: &mut TcpStream, state: &State) -> std::io::Result<bool> {
    let Sending { body, etag, modified, length, ranges, is_placed, cut, block_bytes } = sending;
    if request.if_none_match.as_ref() == Some(&etag) {
        write!(out, "HTTP/1.1 304 Not Modified\r\nETag: {etag}\r\n\r\n")?;
        return Ok(true);
    }
    let is_same = modified.is_some() || request.if_range.as_ref().is_none_or(|known| *known == etag);
    let offset = request.range.filter(|_| ranges && is_same).unwrap_or(0);
    if offset > 0 && offset >= body.len() {
        write!(
            out,
            "HTTP/1.1 416 Range\r\nContent-Range: bytes */{}\r\nContent-Length: 0\r\n\r\n",
            body.len()
        )?;
        return Ok(true);
    }
    let rest = &body[offset..];
    let announced = length.unwrap_or(rest.len());
    match offset {
        0 => write!(out, "HTTP/1.1 200 OK\r\n")?,
        _ if !is_placed => write!(out, "HTTP/1.1 206 Partial\r\n")?,
        _ => write!(
            out,
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes {offset}-{}/{}\r\n",
            body.len() - 1,
            body.len()
        )?,
    }
    match modified {
        Some(time) => write!(out, "Last-Modified: {time}\r\n")?,
        None => write!(out, "ETag: {etag}\r\n")?,
    }
    write!(out, "Content-Length: {announced}\r\n\r\n")?;
    let rest = &rest[..cut.unwrap_or(rest.len()).min(rest.len())];
    for block in rest.chunks(block_bytes) {
        out.write_all(block)?;
        state.body_bytes.fetch_add(block.len() as u64, Ordering::Relaxed);
    }
    Ok(cut.is_none() && length.is_none())
}
