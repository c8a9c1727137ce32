//! The dialogue before STARTTLS (RFC 3207), on an unencrypted connection: greeting, `EHLO`, `STARTTLS`.
//! Nothing that the server said before is trusted afterwards, and bytes after its last answer end the
//! connection: an attacker may have added them.
//!
//! The SMTP library would keep such bytes in its buffer, so these lines are read here.

use std::io;

use thiserror::Error;
use tidings_egress::mail::MailLine;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// Most bytes of one line (RFC 5321, 4.5.3.1.5 asks for 512).
const LINE_BYTES_MAX: u64 = 2_048;
/// Most lines of one answer.
const LINES_MAX: usize = 100;
/// The server is ready (greeting, STARTTLS).
const READY: u16 = 220;
/// The answer to `EHLO`.
const DONE: u16 = 250;

/// Why the connection cannot be encrypted.
#[derive(Debug, Error)]
pub(super) enum StartTlsFault {
    /// The server does not offer STARTTLS, or an attacker removed the offer.
    #[error("the server does not offer STARTTLS: nothing was sent to it")]
    NotOffered,
    /// The server answered with another code.
    #[error("the server answered {code} {text}")]
    Code {
        /// The three-digit code of the reply (RFC 5321, 4.2).
        code: u16,
        /// The text of the reply, without the code.
        text: String,
    },
    /// The server sent more than the answer.
    #[error("the server said more than it was asked for before the connection was encrypted")]
    Injected,
    /// The peer does not speak SMTP.
    #[error("the server does not speak SMTP")]
    NotSmtp,
    /// The connection failed or ended before the whole reply came.
    #[error("the connection ended: {0}")]
    Connection(#[from] io::Error),
}

/// Asks the server to go on in TLS; the connection, ready for the handshake.
pub(super) async fn ask(line: MailLine, hello: &str) -> Result<MailLine, StartTlsFault> {
    let mut reader = BufReader::new(line);
    expect(&mut reader, READY).await?;
    write(&mut reader, &format!("EHLO {hello}\r\n")).await?;
    let offers = expect(&mut reader, DONE).await?;
    if !offers.iter().skip(1).any(|offer| offer.trim().eq_ignore_ascii_case("STARTTLS")) {
        return Err(StartTlsFault::NotOffered);
    }
    write(&mut reader, "STARTTLS\r\n").await?;
    expect(&mut reader, READY).await?;
    if !reader.buffer().is_empty() {
        return Err(StartTlsFault::Injected);
    }
    Ok(reader.into_inner())
}

async fn write(reader: &mut BufReader<MailLine>, text: &str) -> io::Result<()> {
    reader.get_mut().write_all(text.as_bytes()).await?;
    reader.get_mut().flush().await
}

/// Reads an answer, which must have this code; the texts of its lines.
async fn expect(reader: &mut BufReader<MailLine>, wanted: u16) -> Result<Vec<String>, StartTlsFault> {
    let mut texts = Vec::new();
    while texts.len() < LINES_MAX {
        let mut bytes = Vec::new();
        (&mut *reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).await?;
        let (code, is_last, text) = read_line(&bytes).ok_or(StartTlsFault::NotSmtp)?;
        if code != wanted {
            return Err(StartTlsFault::Code { code, text });
        }
        texts.push(text);
        if is_last {
            return Ok(texts);
        }
    }
    Err(StartTlsFault::NotSmtp)
}

/// One line of an answer: its code, whether it is the last one, its text.
fn read_line(bytes: &[u8]) -> Option<(u16, bool, String)> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.trim_end_matches('\r');
    let (code, rest) = line.split_at_checked(3)?;
    let code = code.bytes().all(|byte| byte.is_ascii_digit()).then(|| code.parse().ok())??;
    match rest.chars().next() {
        None | Some(' ') => Some((code, true, rest.trim().to_owned())),
        Some('-') => Some((code, false, rest[1..].trim().to_owned())),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_answers_are_read_and_nothing_else_is() {
        for (line, expected) in [
            ("220 mail.example ESMTP\r\n", Some((220, true, "mail.example ESMTP"))),
            ("250-SIZE 100\r\n", Some((250, false, "SIZE 100"))),
            ("250 STARTTLS\n", Some((250, true, "STARTTLS"))),
            ("250\r\n", Some((250, true, ""))),
            ("250 cut off", None),
            ("", None),
            ("25\r\n", None),
            ("2x0 a\r\n", None),
            ("+50 a\r\n", None),
            ("250_a\r\n", None),
            ("HTTP/1.1 400 Bad Request\r\n", None),
            ("\u{fc}\u{fc} \r\n", None),
        ] {
            let read = read_line(line.as_bytes());
            let read = read.as_ref().map(|(code, is_last, text)| (*code, *is_last, text.as_str()));
            assert_eq!(read, expected, "{line:?}");
        }
        assert_eq!(read_line(b"250 \xff\r\n"), None);
    }
}
