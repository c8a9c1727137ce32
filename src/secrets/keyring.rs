//! The keyring file: JSON with several keys, one of them primary, readable by its owner only.
//!
//! The primary key seals, every key opens. A fingerprint is made with the primary key too, and
//! looked for with every key, until what older keys made is made anew. A running server changes its
//! keyring in place: the file first, then what is in force. A file that is short, garbage, too open
//! or whose keys are no random numbers is refused: better no start than secrets under a weak key.

mod handing;

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tidings_actors::{ports::Random, secret::Secret};
use tidings_entity::id::AppId;
use zeroize::{Zeroize, Zeroizing};

pub use self::handing::HandedKey;
use super::{Place, SecretsError, audit_keys::AuditKeys, envelope};

const FORMAT: u32 = 1;
/// Beyond any honest keyring; protects the start from a wrong path.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The purpose of the keys that the audit log is written with.
const AUDIT: &str = "audit";
/// 32 random bytes with fewer distinct values than this do not occur (chance below 2^-60).
const DISTINCT_BYTES_MIN: usize = 16;
/// Random bytes do not begin anew after so few of them.
const PERIOD_MAX: usize = 16;

/// The keys that protect secrets at rest.
pub struct Keyring {
    /// Its file; `None` for one that was read from elsewhere.
    path: Option<PathBuf>,
    /// Whether that file is there.
    is_kept: AtomicBool,
    /// What is in force; readers take it as it is and never wait for a file.
    ring: RwLock<Arc<Ring>>,
    /// Held while the file is changed.
    changing: Mutex<()>,
    /// How often something was sealed.
    sealings: AtomicU64,
}

/// Keys as they stand at one moment.
struct Ring {
    /// Oldest first, never empty.
    keys: Vec<Key>,
    /// Index into `keys`.
    primary: usize,
    /// What is left of keys that were taken out: it only checks old rows of the audit log, and the key
    /// does not follow from it.
    retired: Vec<Key>,
}

#[derive(Clone)]
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retired: Vec<FileKey>,
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
        let keyring = Self::generate(random).destined_for(path);
        keyring.keep()?;
        Ok(keyring)
    }

    /// A keyring with one new key, in memory.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self::of(Ring { keys: vec![Key::generate(random)], primary: 0, retired: Vec::new() })
    }

    /// The same keyring, which [`Keyring::keep`] writes there.
    #[must_use]
    pub fn destined_for(self, path: &Path) -> Self {
        Self { path: Some(path.into()), is_kept: AtomicBool::new(false), ..self }
    }

    /// Whether nothing is lost with this process: it lies in a file.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::SeqCst)
    }

    /// Writes a keyring that is only in memory to the file that it is destined for. Before anything is
    /// sealed with it: what is sealed with a keyring that nobody has is lost.
    ///
    /// # Errors
    /// [`SecretsError::File`], also when there is a file already; [`SecretsError::NoFile`].
    pub fn keep(&self) -> Result<(), SecretsError> {
        let _one_at_a_time = self.changing.lock();
        if !self.is_kept() {
            self.save_new(self.path.as_deref().ok_or(SecretsError::NoFile)?)?;
            self.is_kept.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Writes this keyring, synced, to a file that did not exist.
    ///
    /// # Errors
    /// [`SecretsError::File`], also when there is a file already.
    pub fn save_new(&self, path: &Path) -> Result<(), SecretsError> {
        // A link refuses to replace a file, and the file it names is whole: a crash leaves none.
        let written = self.ring().write_aside(path).and_then(|aside| {
            let linked = fs::hard_link(&aside, path);
            fs::remove_file(&aside)?;
            linked.and_then(|()| sync_folder(path))
        });
        written.map_err(|source| SecretsError::File { path: path.into(), source })
    }

    /// Writes this keyring unless the file holds the same already, as after a crash in between.
    ///
    /// # Errors
    /// [`SecretsError::File`], also when the file holds something else.
    pub fn ensure(&self, path: &Path) -> Result<(), SecretsError> {
        if !Self::open(path).is_ok_and(|there| there.is_like(self)) {
            return self.save_new(path);
        }
        match fs::remove_file(aside(path)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(SecretsError::File { path: path.into(), source })
            }
            _ => Ok(()),
        }
    }

    /// Whether it holds the same keys and seals with the same.
    pub fn is_like(&self, other: &Self) -> bool {
        matches!((self.text(), other.text()), (Ok(one), Ok(other)) if *one == *other)
    }

    /// Reads a keyring.
    ///
    /// # Errors
    /// A missing file, wrong permissions, garbage, and keys that are short or not random.
    pub fn open(path: &Path) -> Result<Self, SecretsError> {
        let keyring = Self::read(path, true)?;
        Ok(Self { path: Some(path.into()), is_kept: AtomicBool::new(true), ..keyring })
    }

    /// Reads a keyring that somebody else keeps, as a mounted secret: who else may read it is their
    /// concern, and it is never changed.
    ///
    /// # Errors
    /// A missing file, garbage, and keys that are short or not random.
    pub fn open_given(path: &Path) -> Result<Self, SecretsError> {
        Self::read(path, false)
    }

    /// Reads a file; `is_own`: one that only its owner may read.
    fn read(path: &Path, is_own: bool) -> Result<Self, SecretsError> {
        let failed = |source| SecretsError::File { path: path.into(), source };
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if is_own && mode & 0o077 != 0 {
            return Err(SecretsError::Permissions { path: path.into(), mode });
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(failed)?;
        Self::parse(&text).map_err(|reason| SecretsError::Invalid { path: path.into(), reason })
    }

    /// Reads the text of a keyring file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        Ring::parse(text).map(Self::of)
    }

    /// The text of the file.
    pub(super) fn text(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.ring().text()
    }

    /// Adds a key, makes it primary and replaces the file at once. What older keys sealed still
    /// opens.
    ///
    /// # Errors
    /// [`SecretsError::File`]; the old file stands then, and so does what is in force.
    pub fn rotate(&self, random: &dyn Random) -> Result<(), SecretsError> {
        self.change(|ring| {
            let mut keys = ring.keys.clone();
            keys.push(Key::generate(random));
            Ok(Ring { primary: keys.len() - 1, keys, retired: ring.retired.clone() })
        })
    }

    /// Takes a key out and replaces the file at once. Nothing that it sealed opens any more; the rows of
    /// the audit log that were written with it can still be checked.
    ///
    /// # Errors
    /// [`SecretsError::UnknownKey`], [`SecretsError::PrimaryKey`], [`SecretsError::File`]; the old
    /// file stands then.
    pub fn retire(&self, id: &str) -> Result<(), SecretsError> {
        self.change(|ring| {
            let place = ring.place(id).ok_or_else(|| SecretsError::UnknownKey(id.to_owned()))?;
            if place == ring.primary {
                return Err(SecretsError::PrimaryKey);
            }
            let (mut keys, mut retired) = (ring.keys.clone(), ring.retired.clone());
            let gone = keys.remove(place);
            retired.push(Key { id: gone.id, bytes: gone.subkey(AUDIT) });
            Ok(Ring { keys, primary: ring.primary - usize::from(place < ring.primary), retired })
        })
    }

    /// Seals `secret` with the primary key, so that it opens in `place` only.
    #[must_use]
    pub fn seal(&self, place: &Place<'_>, secret: &Secret, random: &dyn Random) -> Vec<u8> {
        // Before the key is chosen: whoever saw no sealing missed none.
        self.sealings.fetch_add(1, Ordering::SeqCst);
        let ring = self.ring();
        let key = &ring.keys[ring.primary];
        envelope::seal(key.id, &key.subkey("envelope"), place, secret, random)
    }

    /// Opens a sealed value of `place`.
    ///
    /// # Errors
    /// [`SecretsError::UnknownKey`], [`SecretsError::DoesNotOpen`].
    pub fn open_sealed(&self, place: &Place<'_>, sealed: &[u8]) -> Result<Secret, SecretsError> {
        let id = envelope::key_id(sealed)?;
        let ring = self.ring();
        let key = ring.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| SecretsError::UnknownKey(HEXLOWER.encode(&id)))?;
        envelope::open(&key.subkey("envelope"), place, sealed)
    }

    /// Names `secret` within `app`: equal for equal secrets of one app, and telling nothing to
    /// whoever lacks the keyring. The first one, of the primary key, is kept; the others are those
    /// under which it may have been kept before a rotation.
    #[must_use]
    pub fn fingerprints(&self, app: &AppId, secret: &Secret) -> Vec<String> {
        let ring = self.ring();
        let fingerprint = |key: &Key| {
            let mut mac = mac(&key.subkey("fingerprint"));
            mac.update(app.as_str().as_bytes());
            mac.update(&[0]);
            mac.update(secret.expose().as_bytes());
            HEXLOWER.encode(&mac.finalize().into_bytes())
        };
        let others = ring.keys.iter().filter(|key| key.id != ring.keys[ring.primary].id);
        std::iter::once(&ring.keys[ring.primary]).chain(others).map(fingerprint).collect()
    }

    /// What the audit log is written with, and what its rows are checked with.
    #[must_use]
    pub fn audit_keys(&self) -> AuditKeys {
        let ring = self.ring();
        let of_retired = ring.retired.iter().map(|key| (key.id, key.bytes.clone()));
        let in_force = ring.keys.iter().map(|key| (key.id, key.subkey(AUDIT)));
        AuditKeys::new(ring.keys[ring.primary].id, of_retired.chain(in_force))
    }

    /// What may be shown.
    #[must_use]
    pub fn status(&self) -> KeyringStatus {
        self.ring().status()
    }

    fn of(ring: Ring) -> Self {
        Self {
            path: None,
            is_kept: AtomicBool::new(false),
            ring: RwLock::new(Arc::new(ring)),
            changing: Mutex::default(),
            sealings: AtomicU64::default(),
        }
    }

    fn ring(&self) -> Arc<Ring> {
        self.ring.read().clone()
    }

    /// Writes what `next` makes of the keyring, then puts it in force. Who seals or opens meanwhile
    /// does not wait for the disk.
    fn change(&self, next: impl FnOnce(&Ring) -> Result<Ring, SecretsError>) -> Result<(), SecretsError> {
        let path = self.path.as_deref().ok_or(SecretsError::NoFile)?;
        let failed = |source| SecretsError::File { path: path.into(), source };
        let _one_at_a_time = self.changing.lock();
        let next = next(&self.ring())?;
        let aside = next.write_aside(path).map_err(failed)?;
        fs::rename(&aside, path).and_then(|()| sync_folder(path)).map_err(failed)?;
        *self.ring.write() = Arc::new(next);
        Ok(())
    }
}

impl Ring {
    fn parse(text: &[u8]) -> Result<Self, &'static str> {
        let file: File = serde_json::from_slice(text).map_err(|_| "it is no keyring file")?;
        if file.version != FORMAT {
            return Err("it has a format that this version does not know");
        }
        let keys = file.keys.iter().map(Key::parse).collect::<Result<Vec<_>, _>>()?;
        let retired = file.retired.iter().map(Key::parse).collect::<Result<Vec<_>, _>>()?;
        if keys.iter().map(|key| key.id).collect::<BTreeSet<_>>().len() != keys.len() {
            return Err("two keys have the same id");
        }
        let primary = file.keys.iter().position(|key| key.id == file.primary);
        Ok(Self { keys, primary: primary.ok_or("its primary key is missing")?, retired })
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.keys.iter().position(|key| HEXLOWER.encode(&key.id) == id)
    }

    fn status(&self) -> KeyringStatus {
        let keys: Vec<_> = self.keys.iter().map(|key| HEXLOWER.encode(&key.id)).collect();
        KeyringStatus { primary: keys[self.primary].clone(), keys }
    }

    fn text(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let stored =
            |key: &Key| FileKey { id: HEXLOWER.encode(&key.id), key: BASE64.encode(key.bytes.as_slice()) };
        let file = File {
            version: FORMAT,
            primary: self.status().primary,
            keys: self.keys.iter().map(stored).collect(),
            retired: self.retired.iter().map(stored).collect(),
        };
        // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
        let mut text = Zeroizing::new(Vec::with_capacity(256 + 160 * (self.keys.len() + self.retired.len())));
        serde_json::to_writer_pretty(&mut *text, &file).map_err(io::Error::other)?;
        Ok(text)
    }

    /// Writes a whole, synced file beside `path`; its name.
    fn write_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let text = self.text()?;
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
        if key.is_obvious() {
            return Err(
                "a key is not random: its bytes repeat or count; `tidings key generate` makes one that is",
            );
        }
        Ok(key)
    }

    /// Whether its bytes follow a pattern: they repeat or count.
    fn is_obvious(&self) -> bool {
        let bytes = self.bytes.as_slice();
        let repeats = (1..=PERIOD_MAX).any(|period| bytes[period..] == bytes[..bytes.len() - period]);
        let step = |two: &[u8]| two[1].wrapping_sub(two[0]);
        let counts = bytes.windows(2).all(|two| step(two) == step(bytes));
        repeats || counts || bytes.iter().collect::<BTreeSet<_>>().len() < DISTINCT_BYTES_MIN
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
