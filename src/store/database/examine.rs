//! Examines a database from outside, for finding faults: beside a running server or without one. Claims
//! nothing and changes nothing.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DbBackend};
use sea_orm_migration::MigratorTrait;
use tidings_actors::{
    ports::{GONE, ScanTrouble, StoreError},
    time::Timestamp,
};
use tidings_migration::Migrator;
use tidings_secrets::Keyring;

use super::{
    address::Address,
    canary,
    connect::{self, Connection},
    schema,
};
use crate::{
    OpenError,
    apps::sinks::SINKS_DISABLED,
    database::rows,
    keys::{key_shares, sealed},
};

/// The result of an examination.
#[derive(Debug)]
pub struct Examination {
    /// The faults that the database finds in itself.
    pub faults: Vec<String>,
    /// Unsafe settings of the database, each with advice.
    pub advice: Vec<(String, &'static str)>,
    /// Whether no server has used it yet.
    pub is_new: bool,
    /// Steps of its schema that are missing. Where there are any, nothing below was looked at.
    pub missing_steps: usize,
    /// Whether the keyring opens it; the error where it does not. `None`: none was given.
    pub key: Option<Result<(), OpenError>>,
    /// Whether the keyring opens the database, or the error; `None`: no keyring was given.
    pub sealed: BTreeMap<String, u64>,
    /// The latest moment that was written down.
    pub latest: Timestamp,
    /// Addresses of the repositories that are watched.
    pub repositories: Vec<String>,
    /// Where each app receives, by its id.
    pub endpoints: Vec<(String, String)>,
    /// Obstacles that keep apps from getting their changes.
    pub in_the_way: InTheWay,
    /// The identity of the database; `None`: no server of this version has used it yet.
    pub identity: Option<String>,
}

/// The numbers of obstacles that keep apps from getting their changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTheWay {
    /// Sources whose credential is refused.
    pub credentials_refused: u64,
    /// Sources whose last scan failed for another reason.
    pub sources_failing: u64,
    /// Branches that are blocked.
    pub branches_blocked: u64,
    /// Breakers that are open.
    pub breakers_open: u64,
    /// Subscriptions that are blocked.
    pub subscriptions_blocked: u64,
    /// Apps that are disabled because their endpoint answered 410 Gone.
    pub apps_gone: u64,
    /// Sinks of watches and subscriptions that are disabled because they answered 410 Gone.
    pub sinks_gone: u64,
    /// Statuses of commits that hosts do not show correctly, and that are not told again.
    pub statuses_ended: u64,
    /// Statuses of commits that hosts did not accept in several attempts.
    pub statuses_waiting: u64,
}

const SUBSCRIPTIONS_BLOCKED: &str = "select count(*) from subscription where state = 'blocked'";
const STATUSES_ENDED: &str = "select count(*) from commit_status
    where ended is not null and (told is null or told <> wanted)";
/// A host that is away for a moment is no finding.
const STATUSES_WAITING: &str = "select count(*) from commit_status where next_at is not null and tries >= 3";

/// Examines the database at `url`; `None` if it does not exist yet.
///
/// # Errors
/// See [`OpenError`]: the database cannot be opened, or a newer version wrote it.
pub async fn examine(url: &str, keyring: Option<&Keyring>) -> Result<Option<Examination>, OpenError> {
    let address = Address::parse(url)?;
    if !address.may_exist() {
        return Ok(None);
    }
    let connection = connect::still(&address).await?;
    let found = look(&connection, keyring).await;
    connection.close().await.map_err(|error| OpenError::Database(error.to_string()))?;
    found.map(Some)
}

async fn look(connection: &Connection, keyring: Option<&Keyring>) -> Result<Examination, OpenError> {
    let refused = |error: StoreError| OpenError::Database(error.to_string());
    let faults = schema::faults(connection).await?;
    let advice = match connection.get_database_backend() {
        DbBackend::Postgres => connect::advice(connection).await?,
        _ => of_journal(connection).await.map_err(refused)?,
    };
    let is_new = faults.is_empty() && canary::is_new(connection).await.map_err(refused)?;
    let missing_steps = Migrator::migrations().len() - schema::taken(connection).await?.len();
    let mut found = Examination {
        faults,
        advice,
        is_new,
        missing_steps,
        key: None,
        sealed: BTreeMap::new(),
        latest: Timestamp(0),
        repositories: Vec::new(),
        endpoints: Vec::new(),
        in_the_way: InTheWay::default(),
        identity: None,
    };
    if missing_steps > 0 || !found.faults.is_empty() {
        return Ok(found);
    }
    if let Some(keyring) = keyring {
        // A start first takes the keys that other replicas handed on.
        found.key = Some(match key_shares::keyring_after_start(connection, keyring).await {
            Ok(keyring) => canary::prove(connection, &keyring).await.map(drop),
            Err(error) => Err(error),
        });
    }
    let named = "select 'database', database_id from canary where database_id is not null";
    found.sealed = sealed::by_key(connection).await.map_err(refused)?;
    let text = "select max(at) from (select max(taken_at) as at from lease
                union all select max(began_at) from round union all select max(created_at) from app) moments";
    found.latest = Timestamp(rows::number(connection, "lease", text, vec![]).await.map_err(refused)?);
    let texts = async |table, text: &str| {
        let found = rows::mixed(connection, table, text, vec![]).await.map_err(refused)?;
        let pair =
            |row: &sea_orm::QueryResult| Some((row.try_get_by_index(0).ok()?, row.try_get_by_index(1).ok()?));
        Ok::<Vec<(String, String)>, OpenError>(found.iter().filter_map(pair).collect())
    };
    let repositories = texts("repository", "select id, url from repository order by url").await?;
    found.repositories = repositories.into_iter().map(|(_, url)| url).collect();
    let text = "select id, base_url from app where base_url is not null and base_url <> 'print:'
                   and disabled is null
                union all select app_id, address from sink where address is not null and disabled is null
                   and kind in ('endpoint', 'stream')
                order by 1";
    found.endpoints = texts("app", text).await?;
    let text = "select s.id, s.last_error from source s where s.last_error is not null
                and exists (select 1 from watch w where w.source_id = s.id)";
    let failing = texts("source", text).await?;
    found.in_the_way = in_the_way(connection, &failing).await.map_err(refused)?;
    found.identity = texts("canary", named).await?.pop().map(|(_, identity)| identity);
    Ok(found)
}

/// Counts the obstacles; `failing`: the ids of failing sources, each with its last error.
async fn in_the_way(connection: &Connection, failing: &[(String, String)]) -> Result<InTheWay, StoreError> {
    let count =
        async |table, text| rows::unsigned(table, rows::number(connection, table, text, vec![]).await?);
    let refused = |(_, error): &&(String, String)| ScanTrouble::of(error) == ScanTrouble::Credential;
    let credentials_refused = failing.iter().filter(refused).count() as u64;
    Ok(InTheWay {
        credentials_refused,
        sources_failing: failing.len() as u64 - credentials_refused,
        branches_blocked: count("cursor", "select count(*) from cursor where state = 'blocked'").await?,
        breakers_open: count("breaker", "select count(*) from breaker where opened_at is not null").await?,
        subscriptions_blocked: count("subscription", SUBSCRIPTIONS_BLOCKED).await?,
        apps_gone: count("app", &format!("select count(*) from app where disabled = '{GONE}'")).await?,
        sinks_gone: count("sink", SINKS_DISABLED).await?,
        statuses_ended: count("commit_status", STATUSES_ENDED).await?,
        statuses_waiting: count("commit_status", STATUSES_WAITING).await?,
    })
}

/// The journal mode of a SQLite file: `wal`, once a server had it open.
async fn of_journal(connection: &Connection) -> Result<Vec<(String, &'static str)>, StoreError> {
    let mode = rows::mixed(connection, "sqlite_schema", "pragma journal_mode", vec![]).await?;
    let mode: String = mode.first().and_then(|row| row.try_get_by_index(0).ok()).unwrap_or_default();
    if mode == "wal" {
        return Ok(Vec::new());
    }
    let said = format!("its journal is {mode}, not wal: readers and the writer hold each other up");
    Ok(vec![(said, "start the server: it sets this by itself")])
}
