//! A reader of server-sent events: one at a time, as they come.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Instant,
};

use serde_json::Value;

use super::{api::App, patience::SOON, server::Server};

/// Id, type and data of an event.
pub(crate) type TailEvent = (String, String, Value);

/// Events as they come.
pub(crate) struct Tail(BufReader<TcpStream>);

impl Tail {
    /// Follows `path` as an app, with further lines of headers.
    pub(crate) fn open(server: &Server, app: &App, path: &str, headers: &str) -> Self {
        Self::try_open(server, app, path, headers).expect("a server that answers")
    }

    /// The same; `None`: the server is gone.
    pub(crate) fn try_open(server: &Server, app: &App, path: &str, headers: &str) -> Option<Self> {
        let mut stream = TcpStream::connect(server.address()).ok()?;
        stream.set_read_timeout(Some(SOON)).expect("set");
        let token = &app.token;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut tail = Self(BufReader::new(stream));
        let head = tail.until("\r\n\r\n")?;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
        tail.until(": tail\n\n").map(|_| tail)
    }

    fn until(&mut self, end: &str) -> Option<String> {
        let mut text = String::new();
        while !text.ends_with(end) {
            self.0.read_line(&mut text).ok().filter(|count| *count > 0)?;
        }
        Some(text)
    }

    /// Waits for the next event; fails if the tail ends.
    pub(crate) fn next(&mut self) -> TailEvent {
        self.try_next().expect("a tail that goes on")
    }

    /// The next event; `None`: the tail ended or broke off, or nothing came for long.
    pub(crate) fn try_next(&mut self) -> Option<TailEvent> {
        let until = Instant::now() + 2 * SOON;
        let (mut id, mut word) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok().filter(|count| *count > 0)?;
            match line.trim_end().split_once(": ") {
                Some(("id", text)) => text.clone_into(&mut id),
                Some(("event", text)) => text.clone_into(&mut word),
                // A line that the break cut off is no event.
                Some(("data", text)) if line.ends_with('\n') => {
                    return Some((id, word, serde_json::from_str(text).expect("JSON")));
                }
                _ if Instant::now() > until => return None,
                _ => {}
            }
        }
    }

    /// The id that the tail gives its reader before anything happens.
    pub(crate) fn placed(&mut self) -> String {
        let text = self.until("\n\n").expect("a place");
        let id = text.lines().find_map(|line| line.strip_prefix("id: "));
        id.unwrap_or_else(|| panic!("no id in {text:?}")).to_owned()
    }

    /// Whether it comes to its end, with no further event.
    pub(crate) fn ends(mut self) -> bool {
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                Ok(0) => return true,
                Ok(_) if line == "0\r\n" => return true,
                Ok(_) if !line.contains("event") => {}
                _ => return false,
            }
        }
        false
    }
}
