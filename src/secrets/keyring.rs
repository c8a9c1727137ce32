//! The keyring file: JSON with several keys, one of them primary, readable only by its owner.
//!
//! The primary key seals, every key opens. Fingerprints are made with the primary key too, and searched with
//! every key until those of older keys have been replaced. A running server changes its keyring in place:
//! first the file, then the keys in memory. A file that is short, malformed, readable by others or with keys
//! that are no random numbers is refused: no start is better than secrets under a weak key.

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
use tidings_actors::{model::secret::Secret, ports::Random};
use tidings_entity::id::AppId;
use zeroize::{Zeroize, Zeroizing};

pub use self::handing::HandedKey;
use super::{SealedField, SecretsError, audit_keys::AuditKeys, envelope};

const FORMAT: u32 = 1;
/// Beyond any honest keyring; protects the start from a wrong path.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The purpose of the keys that the audit log is written with.
const AUDIT: &str = "audit";
/// 32 random bytes with fewer distinct values than this do not occur (chance below 2^-60).
const DISTINCT_BYTES_MIN: usize = 16;
/// Bytes that repeat with a period of at most this length are not random.
const PERIOD_MAX: usize = 16;

/// The keys that protect secrets at rest.
pub struct Keyring {
    /// The path of the file; `None` for a keyring that was not read from its own file.
    path: Option<PathBuf>,
    /// Whether that file is there.
    is_kept: AtomicBool,
    /// The keys in use; readers copy the pointer and never wait for a file.
    ring: RwLock<Arc<Ring>>,
    /// Held while the file is changed.
    changing: Mutex<()>,
    /// How often something was sealed.
    sealings: AtomicU64,
}

/// The keys at one moment.
struct Ring {
    /// Oldest first, never empty.
    keys: Vec<SealingKey>,
    /// The index of the primary key in `keys`.
    primary: usize,
    /// The remains of retired keys: they only check old rows of the audit log, and the sealing key cannot be
    /// derived from them.
    retired: Vec<SealingKey>,
}

#[derive(Clone)]
struct SealingKey {
    id: [u8; 4],
    bytes: Zeroizing<[u8; 32]>,
}

/// The facts about a keyring that may be shown.
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
    /// Creates a keyring with one key and writes it, synced, to a file that must not exist.
    ///
    /// # Errors
    /// [`SecretsError::File`], also if the file exists.
    pub fn create(path: &Path, random: &dyn Random) -> Result<Self, SecretsError> {
        let keyring = Self::generate(random).destined_for(path);
        keyring.keep()?;
        Ok(keyring)
    }

    /// Creates a keyring with one new key, in memory only.
    #[must_use]
    pub fn generate(random: &dyn Random) -> Self {
        Self::of(Ring { keys: vec![SealingKey::generate(random)], primary: 0, retired: Vec::new() })
    }

    /// The same keyring, which [`Keyring::keep`] writes to this path.
    #[must_use]
    pub fn destined_for(self, path: &Path) -> Self {
        Self { path: Some(path.into()), is_kept: AtomicBool::new(false), ..self }
    }

    /// Whether the keyring is stored in a file.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::SeqCst)
    }

    /// Writes a keyring that is only in memory to its file. This must happen before anything is sealed with
    /// it: values sealed with a lost keyring are lost.
    ///
    /// # Errors
    /// [`SecretsError::File`], also if the file exists; [`SecretsError::NoFile`] for a keyring without a
    /// path.
    pub fn keep(&self) -> Result<(), SecretsError> {
        let _one_at_a_time = self.changing.lock();
        if !self.is_kept() {
            self.save_new(self.path.as_deref().ok_or(SecretsError::NoFile)?)?;
            self.is_kept.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Writes this keyring, synced, to a file that must not exist.
    ///
    /// # Errors
    /// [`SecretsError::File`], also if the file exists.
    pub fn save_new(&self, path: &Path) -> Result<(), SecretsError> {
        // A hard link does not replace an existing file, and the linked file is whole: a crash leaves no
        // partial file.
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

    /// Reads a keyring that the operator provides, such as a mounted secret: its access rights are the
    /// operator's concern, and the file is never changed.
    ///
    /// # Errors
    /// If the file is missing or malformed, or a key is short or not random.
    pub fn open_given(path: &Path) -> Result<Self, SecretsError> {
        Self::read(path, false)
    }

    /// Reads a file; `is_own`: only its owner may be able to read it.
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

    /// Parses the text of a keyring file.
    ///
    /// # Errors
    /// The fault of the text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, &'static str> {
        Ring::parse(text).map(Self::of)
    }

    /// The text of the file.
    pub(super) fn text(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        self.ring().text()
    }

    /// Adds a key, makes it primary and replaces the file at once. Older keys still open their values.
    ///
    /// # Errors
    /// [`SecretsError::File`]; then the file and the keys in use are unchanged.
    pub fn rotate(&self, random: &dyn Random) -> Result<(), SecretsError> {
        self.change(|ring| {
            let mut keys = ring.keys.clone();
            keys.push(SealingKey::generate(random));
            Ok(Ring { primary: keys.len() - 1, keys, retired: ring.retired.clone() })
        })
    }

    /// Removes a key and replaces the file at once. Values that the key sealed cannot be opened any more;
    /// rows of the audit log that were written with it can still be checked.
    ///
    /// # Errors
    /// [`SecretsError::UnknownKey`], [`SecretsError::PrimaryKey`], [`SecretsError::File`]; then the file is
    /// unchanged.
    pub fn retire(&self, id: &str) -> Result<(), SecretsError> {
        self.change(|ring| {
            let place = ring.place(id).ok_or_else(|| SecretsError::UnknownKey(id.to_owned()))?;
            if place == ring.primary {
                return Err(SecretsError::PrimaryKey);
            }
            let (mut keys, mut retired) = (ring.keys.clone(), ring.retired.clone());
            let gone = keys.remove(place);
            retired.push(SealingKey { id: gone.id, bytes: gone.subkey(AUDIT) });
            Ok(Ring { keys, primary: ring.primary - usize::from(place < ring.primary), retired })
        })
    }

    /// Seals `secret` with the primary key, so that it opens in `place` only.
    #[must_use]
    pub fn seal(&self, place: &SealedField<'_>, secret: &Secret, random: &dyn Random) -> Vec<u8> {
        // Counted before the key is read: a caller that sees an unchanged count has missed no sealing.
        self.sealings.fetch_add(1, Ordering::SeqCst);
        let ring = self.ring();
        let key = &ring.keys[ring.primary];
        envelope::seal(key.id, &key.subkey("envelope"), place, secret, random)
    }

    /// Opens a sealed value of `place`.
    ///
    /// # Errors
    /// [`SecretsError::UnknownKey`], [`SecretsError::DoesNotOpen`].
    pub fn open_sealed(&self, place: &SealedField<'_>, sealed: &[u8]) -> Result<Secret, SecretsError> {
        let id = envelope::key_id(sealed)?;
        let ring = self.ring();
        let key = ring.keys.iter().find(|key| key.id == id);
        let key = key.ok_or_else(|| SecretsError::UnknownKey(HEXLOWER.encode(&id)))?;
        envelope::open(&key.subkey("envelope"), place, sealed)
    }

    /// The fingerprints of `secret` within `app`: equal for equal secrets of one app, and useless without the
    /// keyring. The first, made with the primary key, is stored; older rows may have one of the others.
    #[must_use]
    pub fn fingerprints(&self, app: &AppId, secret: &Secret) -> Vec<String> {
        let ring = self.ring();
        let fingerprint = |key: &SealingKey| {
            let mut mac = mac(&key.subkey("fingerprint"));
            mac.update(app.as_str().as_bytes());
            mac.update(&[0]);
            mac.update(secret.expose().as_bytes());
            HEXLOWER.encode(&mac.finalize().into_bytes())
        };
        let others = ring.keys.iter().filter(|key| key.id != ring.keys[ring.primary].id);
        std::iter::once(&ring.keys[ring.primary]).chain(others).map(fingerprint).collect()
    }

    /// The keys that write the audit log and check its rows.
    #[must_use]
    pub fn audit_keys(&self) -> AuditKeys {
        let ring = self.ring();
        let of_retired = ring.retired.iter().map(|key| (key.id, key.bytes.clone()));
        let in_force = ring.keys.iter().map(|key| (key.id, key.subkey(AUDIT)));
        AuditKeys::new(ring.keys[ring.primary].id, of_retired.chain(in_force))
    }

    /// The facts that may be shown.
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

    /// Writes the keyring that `next` returns, then uses it. Sealing and opening do not wait for the disk
    /// meanwhile.
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
        let keys = file.keys.iter().map(SealingKey::parse).collect::<Result<Vec<_>, _>>()?;
        let retired = file.retired.iter().map(SealingKey::parse).collect::<Result<Vec<_>, _>>()?;
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
        let stored = |key: &SealingKey| FileKey {
            id: HEXLOWER.encode(&key.id),
            key: BASE64.encode(key.bytes.as_slice()),
        };
        let file = File {
            version: FORMAT,
            primary: self.status().primary,
            keys: self.keys.iter().map(stored).collect(),
            retired: self.retired.iter().map(stored).collect(),
        };
        // The buffer has its full size from the beginning: a growing buffer leaves copies behind that are not
        // wiped.
        let mut text = Zeroizing::new(Vec::with_capacity(256 + 160 * (self.keys.len() + self.retired.len())));
        serde_json::to_writer_pretty(&mut *text, &file).map_err(io::Error::other)?;
        Ok(text)
    }

    /// Writes a whole, synced file beside `path`. Returns its path.
    fn write_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let text = self.text()?;
        let aside = aside(path);
        // A crash may have left such a file.
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

impl SealingKey {
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

    /// Whether the bytes of the key follow a pattern: they repeat or count.
    fn is_obvious(&self) -> bool {
        let bytes = self.bytes.as_slice();
        let repeats = (1..=PERIOD_MAX).any(|period| bytes[period..] == bytes[..bytes.len() - period]);
        let step = |two: &[u8]| two[1].wrapping_sub(two[0]);
        let counts = bytes.windows(2).all(|two| step(two) == step(bytes));
        repeats || counts || bytes.iter().collect::<BTreeSet<_>>().len() < DISTINCT_BYTES_MIN
    }

    /// The subkey for one purpose.
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
