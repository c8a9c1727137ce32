//! The smallest HTTP/1.1 that the stories need, blocking: a client that asks once, and the reading
//! of a message from a socket.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use serde_json::Value;

/// How long one read or write of a request may take: an answer may wait for a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// The head and body of a request or an answer.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// `POST /create HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub(crate) first_line: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, without the framing of chunks.
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The first header of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer of an HTTP server.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status code of the answer.
    pub(crate) status: u16,
    /// Status line, headers and body.
    pub(crate) message: Message,
}

impl Reply {
    /// The body as JSON; null where there is none.
    pub(crate) fn json(&self) -> Value {
        if self.message.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.message.body).expect("an answer in JSON")
    }
}

/// Asks once, on a connection of its own.
///
/// # Errors
/// When nobody listens, or the connection breaks.
pub(crate) fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> io::Result<Reply> {
    ask_within(PATIENCE, address, method, path, token, body)
}

/// Asks once; one read or write may take this long.
///
/// # Errors
/// When nobody listens, or the connection breaks.
pub(crate) fn ask_within(
    patience: Duration,
    address: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> io::Result<Reply> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    if let Some(token) = token {
        head += &format!("authorization: Bearer {token}\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PATCH") {
        head += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    }
    raw_within(patience, address, format!("{head}\r\n{body}").as_bytes())
}

/// Sends these bytes and reads the answer to them.
///
/// # Errors
/// When nobody listens, or the connection breaks.
pub(crate) fn raw(address: SocketAddr, request: &[u8]) -> io::Result<Reply> {
    raw_within(PATIENCE, address, request)
}

fn raw_within(patience: Duration, address: SocketAddr, request: &[u8]) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // A server may answer and close before it has read everything.
    let written = stream.write_all(request);
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader);
    if !matches!(head, Ok(Some(_))) {
        written?;
    }
    let (first_line, headers) = head?.ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = first_line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status in {first_line:?}")))?;
    let mut message = Message { first_line, headers, body: Vec::new() };
    message.body = read_body(&mut reader, &message, true)?;
    Ok(Reply { status, message })
}

/// The first line and the headers; `None` when the peer closed before it said anything.
///
/// # Errors
/// When the connection breaks in the middle.
#[expect(clippy::type_complexity, reason = "a head is a line and its headers")]
pub(crate) fn read_head(reader: &mut impl BufRead) -> io::Result<Option<(String, Vec<(String, String)>)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let first_line = line.trim_end().to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            return Ok(Some((first_line, headers)));
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
}

/// The body that belongs to this head; `to_end`: one without a length ends with the connection.
///
/// # Errors
/// When the connection breaks before the body has ended.
pub(crate) fn read_body(reader: &mut impl BufRead, head: &Message, to_end: bool) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            reader.by_ref().take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    if let Some(length) = head.header("content-length") {
        let length: u64 = length.parse().map_err(io::Error::other)?;
        reader.by_ref().take(length).read_to_end(&mut body)?;
        if body.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    } else if to_end {
        reader.read_to_end(&mut body)?;
    }
    Ok(body)
}
