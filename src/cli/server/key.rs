//! `tidings key`: the keyring that protects secrets at rest. Operations on sealed rows go through a running
//! server, or with `--offline` directly to the database while no server has it open.

use std::{
    fs::{self, DirBuilder},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Value, json};
use tidings_actors::ports::{RESEAL_STEP_MAX, SealingKeys, StoreError};

use crate::cli::{
    Code, Context, Failure,
    client::{Client, ServerArgs},
    output::{aligned, table},
    passphrase::PassphraseArgs,
    progress::Progress,
};
use crate::{
    app::{Claim, KEYRING},
    machine::{MachineClock, MachineRandom},
    secrets::{
        Keyring, SecretsError,
        export::{self, ExportError},
    },
    store::SqlStore,
};

#[derive(Subcommand, Debug)]
pub(crate) enum KeyVerb {
    /// Create a keyring; refuses to overwrite an existing one
    Generate {
        /// The keyring file to create; if missing, that of the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
    /// Show the ids of the keys in a keyring file
    Status {
        /// The keyring file; if missing, that of the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
    /// List the keys with the number of values that each key seals (admin token)
    List(Where),
    /// Add a key and seal new values with it, without a restart (admin token)
    Rotate(Where),
    /// Seal the values of older keys again with the primary key, while the server runs (admin token)
    Reencrypt {
        #[command(flatten)]
        place: Where,
        /// Maximum number of values in one transaction
        #[arg(
            long,
            default_value_t = RESEAL_STEP_MAX,
            value_parser = clap::value_parser!(u64).range(1..=RESEAL_STEP_MAX)
        )]
        step: u64,
    },
    /// Remove a key from the keyring; refused while the key seals values (admin token)
    Retire {
        #[command(flatten)]
        place: Where,
        /// The id of the key, as `tidings key list` shows it
        id: String,
    },
    /// Write the keyring into a file that is encrypted with a passphrase
    Export {
        /// The file to create; it must not exist yet
        to: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// The keyring file; if missing, that of the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
    /// Create a keyring from an exported one; refuses to overwrite an existing one
    Import {
        /// The file that `key export` wrote
        from: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
        /// The keyring file to create; if missing, that of the data directory
        #[arg(long, value_name = "FILE")]
        path: Option<PathBuf>,
    },
}

/// The arguments that choose between a running server and the database.
#[derive(Args, Debug)]
pub(crate) struct Where {
    #[command(flatten)]
    server: ServerArgs,
    /// Work on the data directory of the settings; no server may have it open
    #[arg(long)]
    offline: bool,
}

pub(crate) async fn run(verb: KeyVerb, context: &Context) -> Result<(), Failure> {
    match verb {
        KeyVerb::List(place) => {
            let keys = Door::open(&place, context).await?.keys().await?;
            let lines = table(&keys, &["id", "is_primary", "sealed"]);
            context.output.print(&Value::Array(keys), &lines)
        }
        KeyVerb::Rotate(place) => {
            let id = Door::open(&place, context).await?.rotate().await?;
            let lines = [
                format!("the key {id} seals from now on"),
                "seal again what older keys sealed: tidings key reencrypt".to_owned(),
            ];
            context.output.print(&json!({ "id": id }), &lines)
        }
        KeyVerb::Reencrypt { place, step } => reencrypt(&place, step, context).await,
        KeyVerb::Retire { place, id } => {
            Door::open(&place, context).await?.retire(&id).await?;
            context.output.print(&json!({ "retired": id }), &[format!("the key {id} is retired")])
        }
        KeyVerb::Generate { path } => {
            let settings = context.settings()?;
            if path.is_none() {
                make_data_dir(&settings.data_dir)?;
            }
            let path = path.unwrap_or_else(|| settings.data_dir.join(KEYRING));
            let keyring = Keyring::create(&path, &MachineRandom).map_err(|error| unwritten(&error))?;
            show(&path, &keyring, context)
        }
        KeyVerb::Status { path } => {
            let path = path.map_or_else(|| in_data_dir(context), Ok)?;
            let keyring = Keyring::open(&path).map_err(|error| unread(&error))?;
            show(&path, &keyring, context)
        }
        KeyVerb::Export { to, passphrase, path } => {
            let path = path.map_or_else(|| in_data_dir(context), Ok)?;
            let keyring = Keyring::open(&path).map_err(|error| unread(&error))?;
            let passphrase = passphrase.demand(context)?;
            let text =
                export::export(&keyring, &passphrase, &MachineRandom).map_err(|error| refused(&error))?;
            let mut options = fs::OpenOptions::new();
            let written = options.write(true).create_new(true).mode(0o600).open(&to).and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            });
            written.map_err(|error| {
                Failure::new(Code::CannotCreate, format!("{} cannot be written: {error}", to.display()))
            })?;
            show(&to, &keyring, context)
        }
        KeyVerb::Import { from, passphrase, path } => {
            let text = fs::read(&from).map_err(|error| {
                Failure::new(Code::NoInput, format!("{} cannot be read: {error}", from.display()))
            })?;
            let keyring =
                export::import(&text, &passphrase.demand(context)?).map_err(|error| refused(&error))?;
            let settings = context.settings()?;
            if path.is_none() {
                make_data_dir(&settings.data_dir)?;
            }
            let path = path.unwrap_or_else(|| settings.data_dir.join(KEYRING));
            keyring.save_new(&path).map_err(|error| unwritten(&error))?;
            show(&path, &keyring, context)
        }
    }
}

async fn reencrypt(place: &Where, step: u64, context: &Context) -> Result<(), Failure> {
    let door = Door::open(place, context).await?;
    let progress = Progress::of("values");
    let mut all = 0;
    loop {
        let (resealed, left, unreadable) = door.reseal(step).await?;
        all += resealed;
        progress.done_of(all, all + left);
        if left > unreadable {
            continue;
        }
        drop(progress);
        let sealed = if all == 1 {
            "1 value was sealed again".to_owned()
        } else {
            format!("{all} values were sealed again")
        };
        if left > 0 {
            let text = format!(
                "{sealed}; {unreadable} do not open: the log names them, and their key \
                 stays"
            );
            return Err(Failure::new(Code::Data, text));
        }
        let line = format!("{sealed}; no value with an older key is left");
        return context.output.print(&json!({ "resealed": all, "left": left }), &[line]);
    }
}

/// The access to sealed rows: a running server, or the database itself.
enum Door {
    Server(Box<Client>),
    House(
        Box<SqlStore>,
        #[expect(dead_code, reason = "the data directory is claimed as long as this lives")] Claim,
    ),
}

const PATH: [&str; 3] = ["api", "admin", "keys"];

impl Door {
    async fn open(place: &Where, context: &Context) -> Result<Self, Failure> {
        if !place.offline {
            return context.client(&place.server).map(|client| Self::Server(Box::new(client)));
        }
        let settings = context.settings()?;
        // If the file was read before the claim, it could be older than a rotation, and would be written
        // back.
        let path = settings.data_dir.join(KEYRING);
        Keyring::open(&path).map_err(|error| unread(&error))?;
        let claim = Claim::take(&settings).map_err(|error| Failure::of_start(&error))?;
        let keyring = Keyring::open(&path).map_err(|error| unread(&error))?;
        let (clock, random) = (Arc::new(MachineClock), Arc::new(MachineRandom));
        let store = SqlStore::open(&settings.database_url(), Arc::new(keyring), clock, random).await;
        let store = store.map_err(|error| Failure::of_error(Code::Unavailable, &error))?;
        Ok(Self::House(Box::new(store), claim))
    }

    async fn keys(&self) -> Result<Vec<Value>, Failure> {
        match self {
            Self::Server(client) => client.list(&PATH, &[]).await,
            Self::House(store, _) => {
                let keys = store.keys().await.map_err(|error| of_store(&error))?;
                Ok(keys.into_iter().map(|key| json!(key)).collect())
            }
        }
    }

    async fn rotate(&self) -> Result<String, Failure> {
        match self {
            Self::Server(client) => {
                let path = [&PATH[..], &["rotate"]].concat();
                let key = client.call(Method::POST, &path, None).await?;
                Ok(key["id"].as_str().unwrap_or_default().to_owned())
            }
            Self::House(store, _) => store.rotate_key().await.map_err(|error| of_store(&error)),
        }
    }

    async fn reseal(&self, step: u64) -> Result<(u64, u64, u64), Failure> {
        match self {
            Self::Server(client) => {
                let path = [&PATH[..], &["reencrypt"]].concat();
                let done = client.call(Method::POST, &path, Some(&json!({ "limit": step }))).await?;
                let number = |name: &str| done[name].as_u64();
                number("resealed")
                    .zip(number("left"))
                    .zip(number("unreadable"))
                    .map(|((resealed, left), unreadable)| (resealed, left, unreadable))
                    .ok_or_else(|| Failure::new(Code::Unavailable, "the server answered without numbers"))
            }
            Self::House(store, _) => {
                let done = store.reseal(step).await.map_err(|error| of_store(&error))?;
                Ok((done.resealed, done.left, done.unreadable))
            }
        }
    }

    async fn retire(&self, id: &str) -> Result<(), Failure> {
        match self {
            Self::Server(client) => {
                let path = [&PATH[..], &[id]].concat();
                client.call(Method::DELETE, &path, None).await.map(drop)
            }
            Self::House(store, _) => store.retire_key(id).await.map_err(|error| match error {
                StoreError::NotFound => {
                    let text = format!("the keyring has no key {id}; `tidings key list` names its keys");
                    Failure::new(Code::Data, text)
                }
                other => of_store(&other),
            }),
        }
    }
}

fn of_store(error: &StoreError) -> Failure {
    let code = match error {
        StoreError::NotFound | StoreError::Conflict(_) => Code::Data,
        _ => Code::Unavailable,
    };
    Failure::of_error(code, error)
}

fn in_data_dir(context: &Context) -> Result<PathBuf, Failure> {
    Ok(context.settings()?.data_dir.join(KEYRING))
}

fn show(path: &Path, keyring: &Keyring, context: &Context) -> Result<(), Failure> {
    let status = keyring.status();
    let role = |key: &String| if *key == status.primary { "primary" } else { "old" };
    let keys = status.keys.iter().map(|key| vec![role(key).to_owned(), key.clone()]);
    let lines = aligned(std::iter::once(vec!["keyring".to_owned(), path.display().to_string()]).chain(keys));
    context.output.print(&json!({ "path": path, "primary": status.primary, "keys": status.keys }), &lines)
}

/// Creates the data directory, for its owner alone, if it does not exist.
pub(crate) fn make_data_dir(path: &Path) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(
            Code::CannotCreate,
            format!("the data directory {} cannot be made: {error}", path.display()),
        )
    })
}

/// The failure to read a keyring.
fn unread(error: &SecretsError) -> Failure {
    match error {
        SecretsError::File { .. } => Failure::of_error(Code::NoInput, error),
        _ => Failure::of_error(Code::Data, error),
    }
}

/// The failure to write a new keyring.
fn unwritten(error: &SecretsError) -> Failure {
    match error {
        SecretsError::File { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = format!(
                "there is a keyring already, {}, and it stays; `tidings key rotate` adds a key to it",
                path.display()
            );
            Failure::new(Code::CannotCreate, text)
        }
        _ => Failure::of_error(Code::CannotCreate, error),
    }
}

fn refused(error: &ExportError) -> Failure {
    let code = if *error == ExportError::Weak { Code::Usage } else { Code::Data };
    Failure::of_error(code, error)
}
