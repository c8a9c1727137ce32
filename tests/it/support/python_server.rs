//! A server in Python that writes its port to its first line. Dropped, it is killed.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

/// A running server in Python, killed on drop.
pub(crate) struct PythonServer {
    child: Child,
    /// The port that it listens on.
    pub(crate) port: u16,
}

impl PythonServer {
    /// Starts the server and waits for its port.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a server");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its port");
        let port = line.trim().parse().expect("a port");
        Self { child, port }
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
