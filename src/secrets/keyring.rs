//! The keyring file: JSON with several keys, one of them primary, readable by its owner only.
//!
//! The primary key seals, every key opens. Fingerprints come from the oldest key, so that a
//! rotation does not change them. A file that is short, garbage, too open or whose keys are no
//! random numbers is refused: better no start than secrets under a weak key.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tidings_actors::{ports::Random, secret::Secret};
use tidings_entity::id::AppId;
use zeroize::{Zeroize, Zeroizing};

use super::{Place, SecretsError, envelope};

const FORMAT: u32 = 1;
/// Beyond any honest keyring; protects the start from a wrong path.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// 32 random bytes with fewer distinct values than this do not occur (chance below 2^-60).
const DISTINCT_BYTES_MIN: usize = 16;

/// The keys that protect secrets at rest.
pub struct Keyring {
    /// Oldest first, never empty.
    keys: Vec<Key>,
    /// Index into `keys`.
    primary: usize,
}

struct Key {
    id: [u8; 4],
    bytes: Zeroizing<[u8; 32]>,
}

/// What may be shown of a keyring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyringStatus {
    /// The id of the key that seals.
    pub primary: String,
    /// The ids of all keys, oldest first.
    pub keys: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    primary: String,
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    id: String,
    key: String,
}

impl Drop for FileKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Keyring {
    /// Makes a keyring with one key and writes it, synced, to a file that did not exist.
    ///
    /// # Errors
    /// [`SecretsError::File`], also when there is a file already.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, SecretsError> {
        let keyring = Self { keys: vec![Key::generate(random)], primary: 0 };
        // A link refuses to replace a file, and the file it names is whole: a crash leaves none.
        let written = keyring.write_aside(path).and_then(|aside| {
            let linked = fs::hard_link(&aside, path);
            fs::remove_file(&aside)?;
            linked.and_then(|()| sync_folder(path))
        });
        written.map_err(|source| SecretsError::File { path: path.into(), source })?;
        Ok(keyring)
    }

    /// Reads a keyring.
    ///
    /// # Errors
    /// A missing file, wrong permissions, garbage, and keys that are short or not random.
    pub fn open(path: &Path) -> Result<Self, SecretsError> {
        let failed = |source| SecretsError::File { path: path.into(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretsError::Permissions { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        Self::parse(&text).map_err(|reason| SecretsError::Invalid { path: path.into(), reason })
    }

    /// Adds a key, makes it primary and replaces the file at once. What older keys sealed still
    /// opens.
    ///
    /// # Errors
    /// [`SecretsError::File`]; the old file stands then.
    pub fn rotate(&mut self, path: &Path, random: &dyn Random) -> Result<(), SecretsError> {
        self.keys.push(Key::generate(random));
        let before = std::mem::replace(&mut self.primary, self.keys.len() - 1);
        let written = self.write_aside(path).and_then(|aside| {
            fs::rename(&aside, path)?;
            sync_folder(path)
        });
        written.map_err(|source| {
            self.keys.pop();
            self.primary = before;
            SecretsError::File { path: path.into(), source }
        })
    }

    /// Seals `secret` with the primary key, so that it opens in `place` only.
    #[must_use]
    pub fn seal(&self, place: &Place<'_>, secret: &Secret, random: &dyn Random) -> Vec<u8> {
        let key = &self.keys[self.primary];
        envelope::seal(key.id, &key.subkey("envelope"), place, secret, random)
    }

    /// Opens a sealed value of `place`.
    ///
    /// # Errors
    /// [`SecretsError::UnknownKey`], [`SecretsError::DoesNotOpen`].
    pub fn open_sealed(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Secret, SecretsError> {
        let id = envelope::key_id(sealed)?;
        let key = self
            .keys
            .iter()
            .find(|key| key.id == id)
            .ok_or_else(|| SecretsError::UnknownKey(HEXLOWER.encode(&id)))?;
        envelope::open(&key.subkey("envelope"), place, sealed)
    }

    /// Names `secret` within `app`: equal for equal secrets of one app, and telling nothing to
    /// whoever lacks the keyring.
    #[must_use]
    pub fn fingerprint(&self, app: &AppId, secret: &Secret) -> String {
        let mut mac = mac(&self.keys[0].subkey("fingerprint"));
        mac.update(app.as_str().as_bytes());
        mac.update(&[0]);
        mac.update(secret.expose().as_bytes());
        HEXLOWER.encode(&mac.finalize().into_bytes())
    }

    /// What may be shown.
    #[must_use]
    pub fn status(&self) -> KeyringStatus {
        let keys: Vec<_> = self.keys.iter().map(|key| HEXLOWER.encode(&key.id)).collect();
        KeyringStatus { primary: keys[self.primary].clone(), keys }
    }

    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let file: File = serde_json::from_slice(text).map_err(|_| "it is no keyring file")?;
        if file.version != FORMAT {
            return Err("it has a format that this version does not know");
        }
        let keys = file.keys.iter().map(Key::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.iter().map(|key| key.id).collect::<BTreeSet<_>>().len() != keys.len() {
            return Err("two keys have the same id");
        }
        let primary = file.keys.iter().position(|key| key.id == file.primary);
        Ok(Self { keys, primary: primary.ok_or("its primary key is missing")? })
    }

    /// Writes a whole, synced file beside `path`; its name.
    fn write_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let keys = self
            .keys
            .iter()
            .map(|key| FileKey { id: HEXLOWER.encode(&key.id), key: BASE64.encode(key.bytes.as_slice()) });
        let file = File { version: FORMAT, primary: self.status().primary, keys: keys.collect() };
        let text = Zeroizing::new(serde_json::to_vec_pretty(&file).map_err(io::Error::other)?);
        let aside = aside(path);
        // A crash may have left one.
        if aside.exists() {
            fs::remove_file(&aside)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        out.write_all(&text)?;
        out.sync_all()?;
        Ok(aside)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(formatter)
    }
}

impl Key {
    fn generate(random: &dyn Random) -> Self {
        let mut key = Self { id: [0; 4], bytes: Zeroizing::new([0; 32]) };
        random.fill(&mut key.id);
        random.fill(&mut *key.bytes);
        key
    }

    fn parse(stored: &FileKey) -> Result<Self, &'static str> {
        let id = HEXLOWER.decode(stored.id.as_bytes()).ok().and_then(|id| id.try_into().ok());
        let bytes = BASE64.decode(&stored.key).map(Zeroizing::new).map_err(|_| "a key is not base64")?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| "a key does not have 32 bytes")?;
        let key =
            Self { id: id.ok_or("a key id is not 8 hexadecimal digits")?, bytes: Zeroizing::new(bytes) };
        if key.bytes.iter().collect::<BTreeSet<_>>().len() < DISTINCT_BYTES_MIN {
            return Err("a key is not random");
        }
        Ok(key)
    }

    /// The key of one purpose.
    fn subkey(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut mac = mac(&self.bytes);
        mac.update(b"tidings v1 ");
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }
}

fn mac(key: &[u8; 32]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
