//! A cable between a server and its database that can be cut and mended: a TCP door before the socket of a
//! cluster.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// While it is cut, what came is looked at this often.
const PAUSE: Duration = Duration::from_millis(20);

/// A TCP proxy before the socket of a PostgreSQL server; it can stop to forward.
pub(crate) struct Cable {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Cable {
    /// A whole one to the socket of a PostgreSQL server in this folder.
    pub(crate) fn to(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (cut, socket) = (Arc::new(AtomicBool::new(false)), folder.join(".s.PGSQL.5432"));
        let is_cut = cut.clone();
        // It ends with the process of the test: nobody connects to it later.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (socket, is_cut) = (socket.clone(), is_cut.clone());
                thread::spawn(move || drop(join(stream, socket, is_cut)));
            }
        });
        Self { address, cut }
    }

    /// Nothing gets through in either direction, and nobody is told; or it does again.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.cut.store(is_cut, Ordering::SeqCst);
    }

    /// The address that a server connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

fn join(near: TcpStream, socket: PathBuf, cut: Arc<AtomicBool>) -> io::Result<()> {
    let far = UnixStream::connect(socket)?;
    let (near_in, far_out, out_cut) = (near.try_clone()?, far.try_clone()?, cut.clone());
    let there = thread::spawn(move || {
        carry(near_in, &far_out, &out_cut);
        drop(far_out.shutdown(Shutdown::Both));
    });
    carry(far, &near, &cut);
    drop(near.shutdown(Shutdown::Both));
    drop(there.join());
    Ok(())
}

fn carry(mut from: impl Read, mut to: impl Write, cut: &AtomicBool) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        while cut.load(Ordering::SeqCst) {
            thread::sleep(PAUSE);
        }
        if to.write_all(&bytes[..count]).is_err() {
            return;
        }
    }
}
