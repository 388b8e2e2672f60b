//! A program that is told of something by HTTP: it takes requests and keeps their bodies.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A request as it came: its header and its body.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) header: String,
    pub(crate) body: Vec<u8>,
}

impl Told {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("events are JSON")
    }
}

/// Takes notifications until the test ends.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    address: SocketAddr,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Sink {
    /// Listens at a port of the system's choice.
    pub(crate) fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port is free"))
    }

    /// Listens where somebody was told that it would.
    pub(crate) fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a socket has an address");
        let told = Arc::default();
        let sink = Self { address, told };
        let taking = sink.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let taking = taking.clone();
                std::thread::spawn(move || taking.serve(&stream));
            }
        });
        sink
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/events", self.address)
    }

    /// Returns what was told so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().expect("no thread panics with the lock").clone()
    }

    /// Waits until `count` events were told.
    pub(crate) fn wait(&self, count: usize) -> Vec<Told> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let told = self.told();
            if told.len() >= count {
                return told;
            }
            assert!(Instant::now() < end, "{} of {count} events", told.len());
            super::server::pause();
        }
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut header = String::new();
            while !header.ends_with("\r\n\r\n") {
                if reader.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
            }
            let length = header.lines().find_map(|line| {
                line.to_lowercase()
                    .strip_prefix("content-length:")?
                    .trim()
                    .parse()
                    .ok()
            });
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).expect("the body is whole");
            self.told
                .lock()
                .expect("no thread panics with the lock")
                .push(Told { header, body });
            let mut stream = stream;
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .ok();
        }
    }
}
