//! Secrets may stand nowhere: what a story gave to its server is looked for, when the story ends, in
//! the server's log and in every file of its data directory, as it is and in base64.

use std::{collections::BTreeSet, fs, path::Path};

use aho_corasick::AhoCorasick;
use data_encoding::BASE64;
use serde_json::Value;

/// Fields of requests and answers that hold secrets.
const FIELDS: [&str; 9] = [
    "token",
    "github_token",
    "client_auth_key",
    "signing_secret",
    "signing_key",
    "private_key",
    "password",
    "client_secret",
    "client_key",
];
/// Settings that hold secrets.
const SETTINGS: [&str; 4] =
    ["server.admin_token", "hooks.secret", "mail.password", "artifacts.s3_secret_key"];
/// What is shorter may stand anywhere by chance.
const LENGTH_MIN: usize = 10;
/// Files of the data directory that exist to hold a secret.
const KEPT_IN: [&str; 2] = ["admin-token", "keyring"];

/// What a story gave to its server.
#[derive(Debug, Default)]
pub(crate) struct Secrets(BTreeSet<String>);

impl Secrets {
    /// One secret. Of a token of ours only the secret part is: it ends in a checksum and begins with
    /// what everybody may see.
    pub(crate) fn note(&mut self, secret: &str) {
        let part = match secret.strip_prefix("tdg_").and_then(|rest| rest.split('_').nth(1)) {
            Some(part) => part,
            None => secret.rsplit_once(':').map_or(secret, |(_, password)| password),
        };
        if part.len() >= LENGTH_MIN {
            self.0.insert(part.to_owned());
        }
    }

    /// Every secret in a body.
    pub(crate) fn note_all(&mut self, body: &Value) {
        match body {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str().filter(|_| FIELDS.contains(&name.as_str())) {
                        Some(secret) => self.note(secret),
                        None if name == "headers" => self.note_values(value),
                        None => self.note_all(value),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.note_all(item)),
            _ => {}
        }
    }

    /// Every text of an object, whatever its name.
    fn note_values(&mut self, object: &Value) {
        let values = object.as_object().into_iter().flat_map(|fields| fields.values());
        values.filter_map(Value::as_str).for_each(|secret| self.note(secret));
    }

    /// A setting, if it holds a secret.
    pub(crate) fn note_setting(&mut self, key: &str, value: &str) {
        if SETTINGS.contains(&key) {
            value.split(',').for_each(|secret| self.note(secret));
        }
    }

    /// Fails if one of them stands in a file below `folder`.
    pub(crate) fn assert_absent(&self, folder: &Path) {
        let mut needles = Vec::new();
        for secret in &self.0 {
            needles.push((secret.clone(), secret.as_bytes().to_vec()));
            for text in [secret.clone(), format!("x-access-token:{secret}")] {
                let text = BASE64.encode(text.as_bytes());
                needles.push((secret.clone(), text.trim_end_matches('=').as_bytes().to_vec()));
            }
        }
        let mut files = everything_below(folder);
        files.retain(|(path, _)| !KEPT_IN.iter().any(|name| path.ends_with(name)));
        if !needles.is_empty() {
            search("what a story left behind", &files, &needles);
        }
    }
}

/// Fails if one of these secrets, each with a name that may be shown, stands in one of the files.
pub(crate) fn search(place: &str, files: &[(String, Vec<u8>)], secrets: &[(String, Vec<u8>)]) {
    assert!(files.iter().any(|(_, bytes)| !bytes.is_empty()), "{place} is empty");
    let search = AhoCorasick::new(secrets.iter().map(|(_, secret)| secret)).expect("a few needles");
    for (file, bytes) in files {
        if let Some(found) = search.find(bytes) {
            let name = &secrets[found.pattern()].0;
            let around = found.start().saturating_sub(300)..(found.end() + 100).min(bytes.len());
            let around = String::from_utf8_lossy(&bytes[around]);
            panic!("the {name} stands in {place}, {file}: {around}");
        }
    }
}

/// Every file below a folder, with its content.
pub(crate) fn everything_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                // What goes away between the two looks holds nothing.
                Ok(_) => files.push((path.display().to_string(), fs::read(&path).unwrap_or_default())),
                Err(_) => {}
            }
        }
    }
    files
}
