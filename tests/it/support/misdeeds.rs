//! What hostile receivers do, as bytes and little else: the story of isolation and its benchmark
//! share it.

use std::time::{Duration, SystemTime};

/// What a receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Misdeed {
    /// Says nothing until the other side gives up.
    Hang,
    /// Says a 200 whose body comes a byte at a time.
    Drip,
    /// Says a 200 whose body does not end.
    Flood,
    /// Hangs up in the middle of its answer.
    Vanish,
    /// Takes it in and hangs up without a word.
    TakeAndVanish,
    /// Says exactly these bytes and hangs up.
    Say(Vec<u8>),
}

/// The misdeeds that we know of, each with its name. `elsewhere`: where redirects lead.
#[expect(clippy::disallowed_methods, reason = "receivers name real moments")]
pub(crate) fn misdeeds(elsewhere: &str) -> Vec<(&'static str, Misdeed)> {
    let say = |text: String| Misdeed::Say(text.into_bytes());
    let status = |code: u16| say(format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n"));
    let patience =
        |value: &str| say(format!("HTTP/1.1 429 wait\r\nretry-after: {value}\r\ncontent-length: 0\r\n\r\n"));
    let lines: String = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let later = SystemTime::now() + Duration::from_secs(86_400 * 365);
    let mut bomb = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 40000\r\n\r\n".to_vec();
    bomb.extend(std::iter::repeat_n(0x1f, 40_000));
    vec![
        ("hangs", Misdeed::Hang),
        ("drips", Misdeed::Drip),
        ("floods", Misdeed::Flood),
        ("vanishes", Misdeed::Vanish),
        ("takes it in and vanishes", Misdeed::TakeAndVanish),
        (
            "redirects",
            say(format!("HTTP/1.1 307 x\r\nlocation: {elsewhere}/create\r\ncontent-length: 0\r\n\r\n")),
        ),
        (
            "redirects for ever",
            say("HTTP/1.1 301 x\r\nlocation: /create\r\ncontent-length: 0\r\n\r\n".into()),
        ),
        (
            "one header of a mebibyte",
            say(format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20))),
        ),
        ("ten thousand headers", say(format!("HTTP/1.1 200 OK\r\n{lines}\r\n"))),
        ("another protocol", say("220 I am no web server\r\n".into())),
        ("a gzip bomb", Misdeed::Say(bomb)),
        ("429", status(429)),
        ("429, at once", patience("0")),
        ("429, in a hundred years", patience("3153600000")),
        ("429, beyond all numbers", patience("99999999999999999999999999")),
        ("429, before now", patience("-5")),
        ("429, in a fraction of a second", patience("0.01")),
        ("429, at a date", patience(&httpdate::fmt_http_date(later))),
        ("429, nonsense", patience("soon, I hope")),
        ("interim answers", say("HTTP/1.1 103 x\r\nlink: </a>\r\n\r\n".repeat(50_000))),
        ("two lengths", say("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde".into())),
        (
            "broken chunks",
            say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffffffff\r\n".into()),
        ),
        ("503", status(503)),
    ]
}
