//! The receiver of docs/receiving.md for Rust, word for word; a story compares the two.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderMap;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Keeps a folder. Give it each request; a `Mutex` around it lets one in at a time.
pub(super) struct Receiver {
    key: String,
    folder: PathBuf,
    // Both are lost at a restart. Keep `newest` on disk where late requests must not do harm.
    newest: HashMap<Key, (i64, u64)>,
    chunks: HashMap<Key, Chunks>,
}

/// The cursor and the path of a file that comes in chunks.
type Key = (String, Vec<u8>);

/// The chunk.id, how many of its chunks came, and their bytes.
type Chunks = (String, u64, Vec<u8>);

/// The status of a request that has no effect.
struct Refused(u16);

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self(500) // tried again for a while, then kept as a dead letter
    }
}

/// Whether a request is genuine; `key` is the app's `client_auth_key`.
pub(super) fn is_genuine(key: &str, headers: &HeaderMap, body: &[u8]) -> bool {
    let verifier = standardwebhooks::Webhook::from_bytes(key.as_bytes().to_vec());
    verifier.is_ok_and(|verifier| verifier.verify(body, headers).is_ok())
}

impl Receiver {
    /// `key` is the app's `client_auth_key`; `folder` is made where it is missing.
    pub(super) fn new(key: &str, folder: PathBuf) -> Self {
        Self { key: key.to_owned(), folder, newest: HashMap::new(), chunks: HashMap::new() }
    }

    /// The status and the body that a request is answered with.
    pub(super) fn receive(&mut self, path: &str, headers: &HeaderMap, body: &[u8]) -> (u16, String) {
        if !is_genuine(&self.key, headers, body) {
            return (401, String::new());
        }
        let Ok(message) = serde_json::from_slice::<Value>(body) else { return (400, String::new()) };
        match path {
            "/create" | "/update" | "/delete" => (self.status_of(&message), String::new()),
            "/batch" => {
                let changes = message["changes"].as_array().into_iter().flatten();
                let results: Vec<Value> = changes.map(|change| self.result(change)).collect();
                (200, json!({ "results": results }).to_string())
            }
            "/test" | "/sync_failed" | "/sync_recovered" => (204, String::new()),
            _ => (404, String::new()),
        }
    }

    fn result(&mut self, change: &Value) -> Value {
        let outcome = match self.status_of(change) {
            204 => "accepted",
            422 => "refused",
            _ => "retry",
        };
        json!({ "id": change["event"]["id"], "outcome": outcome })
    }

    fn status_of(&mut self, change: &Value) -> u16 {
        self.take(change).map_or_else(|Refused(status)| status, |()| 204)
    }

    /// Applies one change, or stores one chunk of it.
    fn take(&mut self, change: &Value) -> Result<(), Refused> {
        let (file, event) = (&change["file"], &change["event"]);
        let path = path_of(file)?;
        let key = (event["cursor"].as_str().ok_or(Refused(422))?.to_owned(), path.clone());
        let moment = event["round"].as_i64().zip(event["position"].as_u64()).ok_or(Refused(422))?;
        if self.newest.get(&key).is_some_and(|newest| moment < *newest) {
            return Ok(()); // it comes late: a newer change of this path was applied
        }
        if event["type"] == "file.deleted" {
            self.remove(&path)?;
        } else if file["content"].is_null() {
            // The file is larger than max_size: an outdated copy would be a lie.
            self.remove(&path)?;
            let list = self.folder.with_file_name("left-out.txt");
            let mut list = OpenOptions::new().create(true).append(true).open(list)?;
            writeln!(list, "{} {}", file["content_url"].as_str().unwrap_or_default(), file["path"])?;
        } else {
            let Some(content) = self.content_of(file, &key)? else { return Ok(()) };
            self.write(&path, &content, file["mode"] == "100755")?;
        }
        self.chunks.remove(&key);
        self.newest.insert(key, moment);
        Ok(())
    }

    /// The content; of chunks once the last one is there. A new chunk.id starts the file again.
    fn content_of(&mut self, file: &Value, key: &Key) -> Result<Option<Vec<u8>>, Refused> {
        let text = file["content"].as_str().ok_or(Refused(422))?;
        let mut content = match file["content_encoding"].as_str() {
            Some("base64") => BASE64_STANDARD.decode(text).map_err(|_| Refused(422))?,
            _ => text.as_bytes().to_vec(),
        };
        let chunk = &file["chunk"];
        if let (Some(id), Some(index)) = (chunk["id"].as_str(), chunk["index"].as_u64()) {
            let so_far = self.chunks.remove(key).filter(|_| index > 0);
            let (begun, count, mut bytes) = so_far.unwrap_or_else(|| (id.to_owned(), 0, Vec::new()));
            if begun != id || count != index {
                return Err(Refused(409)); // chunks are missing: the next try begins with the first one
            }
            bytes.append(&mut content);
            if chunk["total"].as_u64() != Some(index + 1) {
                self.chunks.insert(key.clone(), (begun, index + 1, bytes));
                return Ok(None);
            }
            content = bytes;
        }
        let sha: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        if file["sha"] == sha.as_str() { Ok(Some(content)) } else { Err(Refused(422)) }
    }

    /// The folders that a file lies in, the outermost first.
    fn folders_above(&self, path: &[u8]) -> Vec<PathBuf> {
        let inside = Path::new(OsStr::from_bytes(path));
        let mut folders: Vec<PathBuf> =
            inside.ancestors().skip(1).map(|folder| self.folder.join(folder)).collect();
        folders.reverse();
        folders
    }

    fn write(&self, path: &[u8], content: &[u8], is_executable: bool) -> Result<(), Refused> {
        let place = self.folder.join(OsStr::from_bytes(path));
        for folder in self.folders_above(path) {
            if fs::symlink_metadata(&folder).is_ok_and(|facts| facts.is_file()) {
                fs::remove_file(&folder)?; // a file is in the way of this folder
            }
            if fs::symlink_metadata(&folder).is_err() {
                fs::create_dir(&folder)?;
            }
            if !is_folder(&folder) {
                return Err(Refused(422)); // a link would lead out of the folder
            }
        }
        if is_folder(&place) {
            fs::remove_dir_all(&place)?; // a folder is in the way of this file
        }
        let part = self.folder.with_extension("part");
        let mut file = File::create(&part)?;
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(if is_executable { 0o755 } else { 0o644 }))?;
        file.sync_all()?;
        Ok(fs::rename(part, place)?)
    }

    fn remove(&self, path: &[u8]) -> io::Result<()> {
        let (file, folders) = (self.folder.join(OsStr::from_bytes(path)), self.folders_above(path));
        if !folders.iter().all(|folder| is_folder(folder)) || is_folder(&file) {
            return Ok(()); // there is no such file
        }
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Those that are empty now, from the innermost on.
        let _is_last = folders[1..].iter().rev().try_for_each(fs::remove_dir);
        Ok(())
    }
}

/// A link is none.
fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|facts| facts.is_dir())
}

/// The path as Git has it: bytes, which need not be UTF-8.
fn path_of(file: &Value) -> Result<Vec<u8>, Refused> {
    let path = match (file["path_base64"].as_str(), file["path"].as_str()) {
        (Some(encoded), _) => BASE64_STANDARD.decode(encoded).map_err(|_| Refused(422))?,
        (None, path) => path.ok_or(Refused(422))?.as_bytes().to_vec(),
    };
    let is_bad = |name: &[u8]| matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if path.split(|byte| *byte == b'/').any(is_bad) { Err(Refused(422)) } else { Ok(path) }
}
