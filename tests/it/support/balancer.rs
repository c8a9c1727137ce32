//! A TCP door before servers that come and go, as a load balancer has it: one address, behind which each
//! connection goes to the next server that takes it.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// How long one server may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// The door. It stays open until the process of the tests ends.
pub(crate) struct Balancer {
    address: SocketAddr,
    servers: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Balancer {
    /// A door to these servers.
    pub(crate) fn to(servers: Vec<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let servers = Arc::new(Mutex::new(servers));
        let (behind, turn) = (servers.clone(), Arc::new(AtomicUsize::new(0)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (behind, turn) = (behind.clone(), turn.clone());
                // A connection that no server takes is closed: its client sees that and comes again.
                thread::spawn(move || drop(join(stream, &behind, &turn)));
            }
        });
        Self { address, servers }
    }

    /// From now on the door leads to these servers.
    pub(crate) fn lead_to(&self, servers: Vec<SocketAddr>) {
        *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = servers;
    }

    /// The address at which clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn join(near: TcpStream, servers: &Mutex<Vec<SocketAddr>>, turn: &AtomicUsize) -> io::Result<()> {
    let known = servers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let first = turn.fetch_add(1, Ordering::Relaxed);
    let mut in_turn = (0..known.len()).map(|place| known[(first + place) % known.len()]);
    let far = in_turn.find_map(|server| TcpStream::connect_timeout(&server, PATIENCE).ok());
    let far = far.ok_or(io::ErrorKind::ConnectionRefused)?;
    let (near_in, far_out) = (near.try_clone()?, far.try_clone()?);
    let there = thread::spawn(move || {
        carry(near_in, &far_out);
        drop(far_out.shutdown(Shutdown::Both));
    });
    carry(far, &near);
    drop(near.shutdown(Shutdown::Both));
    drop(there.join());
    Ok(())
}

fn carry(mut from: impl Read, mut to: impl Write) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
