//! A load balancer in front of replicas: each connection goes to the next one that takes it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const CONNECT: Duration = Duration::from_secs(1);

/// Where the replicas are, in turn. `None` is one that is not there.
type Targets = Arc<Mutex<Vec<Option<SocketAddr>>>>;

/// A balancer that ends with the test program.
pub(crate) struct Balancer {
    address: SocketAddr,
    targets: Targets,
}

impl Balancer {
    /// Starts one for this many replicas, none of which is there yet.
    pub(crate) fn start(replicas: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let targets: Targets = Arc::new(Mutex::new(vec![None; replicas]));
        let seen = Arc::clone(&targets);
        thread::spawn(move || {
            for (number, client) in listener.incoming().enumerate() {
                let (Ok(client), targets) = (client, Arc::clone(&seen)) else {
                    continue;
                };
                // Without a replica the connection is closed, as by a balancer that restarts.
                thread::spawn(move || connect(&targets, number).and_then(|server| relay(client, server)));
            }
        });
        Self { address, targets }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says where a replica is from now on.
    pub(crate) fn set(&self, replica: usize, target: Option<SocketAddr>) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)[replica] = target;
    }
}

fn connect(targets: &Targets, first: usize) -> io::Result<TcpStream> {
    let targets = targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let in_turn = (0..targets.len()).filter_map(|at| targets[(first + at) % targets.len()]);
    let mut last = Err(io::ErrorKind::NotConnected.into());
    for target in in_turn {
        last = TcpStream::connect_timeout(&target, CONNECT);
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Copies both ways until both sides have ended.
fn relay(client: TcpStream, server: TcpStream) -> io::Result<()> {
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let sending = thread::spawn(move || copy(from_client, to_server));
    copy(server, client);
    sending.join().ok();
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    match io::copy(&mut from, &mut to) {
        Ok(_) => drop(to.shutdown(Shutdown::Write)),
        // The other side has to see that it broke off.
        Err(_) => drop((to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both))),
    }
}
