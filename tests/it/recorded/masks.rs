//! What differs from one recording to the next (ids, moments, addresses, signatures) gets a name, the same at
//! each of its places.

use std::collections::HashMap;

/// What the time decides.
const TIMED: [&str; 5] =
    ["\"lag_ms\":", "\"took_ms\":", "\"bytes\":", "\"effective_reason\":", "\ncontent-length: "];

/// Names by what they stand for.
#[derive(Default)]
pub(super) struct Masks {
    names: HashMap<String, String>,
    counts: HashMap<&'static str, usize>,
}

impl Masks {
    /// A text in which each of these words has its name, and each long one its length.
    pub(super) fn cover(&mut self, text: &str) -> String {
        let text = text.replace("\r\n", "\n");
        // What a watch waits for, and the length of an answer that says so, differ with every millisecond.
        let text = TIMED.iter().fold(text, |text, field| values(&text, field, "<value>"));
        let lines = text.lines().map(|line| if line.starts_with("date: ") { "date: <time>" } else { line });
        let text = lines.collect::<Vec<_>>().join("\n");
        let agent = concat!("Tidings/", env!("CARGO_PKG_VERSION"));
        let text = text.replace(agent, "Tidings/<version>").replace("Tidings/0.1.0", "Tidings/<version>");
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-+/=.:,".contains(c);
        let mut covered = String::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            covered += &self.word(&rest[..length]);
            let other = rest[length..].find(is_part).map_or(rest.len(), |found| length + found);
            covered += &rest[length..other];
            rest = &rest[other..];
        }
        covered
    }

    /// A word between two others; its parts are looked at where the whole of it means nothing.
    fn word(&mut self, word: &str) -> String {
        if let Some(kind) = kind(word) {
            return self.name(kind, word);
        }
        if word.len() > 300 {
            return format!("<{} characters>", word.len());
        }
        for separator in [',', '/', '=', ':', '.'] {
            if let Some((first, rest)) = word.split_once(separator) {
                return format!("{}{separator}{}", self.word(first), self.word(rest));
            }
        }
        word.to_owned()
    }

    fn name(&mut self, kind: &'static str, word: &str) -> String {
        if let Some(name) = self.names.get(word) {
            return name.clone();
        }
        // How many moments are told apart depends on the clock.
        let name = if ["time", "signature", "seconds"].contains(&kind) {
            format!("<{kind}>")
        } else {
            let count = self.counts.entry(kind).or_default();
            *count += 1;
            format!("<{kind} {count}>")
        };
        self.names.insert(word.to_owned(), name.clone());
        name
    }
}

/// A text in which `name` stands for each value, a number or a string, that follows `before`.
pub(super) fn values(text: &str, before: &str, name: &str) -> String {
    let mut parts = text.split(before);
    let mut named = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = match part.strip_prefix('"') {
            Some(string) => string.split_once('"').expect("a string ends").1,
            None => part.trim_start_matches(|c: char| c.is_ascii_digit()),
        };
        named += before;
        named += name;
        named += rest;
    }
    named
}

/// What a word stands for, where that differs each time.
fn kind(word: &str) -> Option<&'static str> {
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some((prefix, rest)) = word.split_once('_') {
        let is_id = rest.len() >= 20 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        return match prefix {
            "app" | "rep" | "repo" | "dlv" | "dead" | "req" | "lease" | "cur" if is_id => Some("id"),
            "docora" | "tdg" if is_id => Some("token"),
            "whsec" => Some("secret"),
            _ => None,
        };
    }
    if word.len() == 24 && word.ends_with('Z') && word.as_bytes()[10] == b'T' {
        return Some("time");
    }
    match word {
        _ if word.starts_with("v1,") || word.starts_with("sha256=") => Some("signature"),
        _ if is_hex(word, 64) => Some("hash"),
        _ if is_hex(word, 40) => Some("commit"),
        _ if is_hex(word, 32) || is_hex(word, 16) => Some("trace"),
        _ if is_number(word) && word.len() == 10 => Some("seconds"),
        _ if is_number(word) && word.len() == 13 => Some("round"),
        _ if word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4 => Some("chunk"),
        _ if word.strip_prefix("127.0.0.1:").is_some_and(is_number) => Some("address"),
        _ => None,
    }
}
