//! Repositories, credentials and sources: found or created at a registration, read in bulk for the watchers,
//! removed when they are not used any more.

pub(crate) mod heads;
pub(crate) mod known;
pub(crate) mod receipt_bodies;
pub(crate) mod receipts;

use std::collections::{BTreeMap, BTreeSet};

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use tidings_actors::{
    model::follow::Followed,
    model::secret::Secret,
    ports::{Extent, Location, Reach, Remote, Selector, Source, StoreError, patterns_of},
    time::Timestamp,
};
use tidings_entity::{
    credential,
    id::{AppId, CredentialId, ObjectId, RepositoryId, SourceId},
    kind::{HistoryMode, SelectorKind},
    repository, source,
};
use tidings_secrets::SealedField;
use url::Url;

use crate::{
    Context,
    database::{error::undecodable, rows},
    leases::reach,
    watching::watches::views,
};

/// A source with the data needed to reach it.
#[derive(FromQueryResult)]
struct SourceRow {
    id: SourceId,
    repository_id: RepositoryId,
    last_change: i64,
    hooked_at: Option<i64>,
    url: String,
    credential_id: Option<CredentialId>,
    secret: Option<Vec<u8>>,
}

const SOURCE: &str =
    "select s.id, s.repository_id, s.last_change, r.hooked_at, coalesce(s.moved_to, r.url) as url,
            s.credential_id, k.secret
     from source s join repository r on r.id = s.repository_id
     left join credential k on k.id = s.credential_id";

/// A watch and one of its cursors, as its source sees them.
#[derive(FromQueryResult)]
struct Follower {
    source_id: SourceId,
    repository_id: RepositoryId,
    app_id: AppId,
    selector_kind: SelectorKind,
    selector_value: String,
    mode: HistoryMode,
    view: String,
    branch: Option<String>,
    held: Option<ObjectId>,
}

#[derive(FromQueryResult)]
struct HeadRow {
    source_id: SourceId,
    commit_id: ObjectId,
}

/// The location of a watch's repository and the credential for it; the request is on behalf of the watch's
/// app.
pub(crate) async fn remote(
    connection: &impl ConnectionTrait,
    context: &Context,
    watch: &tidings_entity::watch::Model,
) -> Result<Remote, StoreError> {
    let text = format!("{SOURCE} where s.id = $1");
    let values = vec![watch.source_id.clone().into()];
    let row: Option<SourceRow> = rows::one(connection, "source", &text, values).await?;
    let remote = row.ok_or(StoreError::NotFound)?.remote(context)?;
    Ok(Remote { apps: vec![watch.app_id.clone()], ..remote })
}

/// The sources of one repository.
pub(crate) async fn of(
    connection: &impl ConnectionTrait,
    context: &Context,
    repository: &RepositoryId,
) -> Result<Vec<Source>, StoreError> {
    let (condition, values) = ("s.repository_id = $1", vec![repository.clone().into()]);
    let found = list_where(connection, context, condition, values).await?;
    Ok(found.into_iter().flat_map(|(_, sources)| sources).collect())
}

/// The sources of all repositories in these shards.
pub(crate) async fn list(
    connection: &impl ConnectionTrait,
    context: &Context,
    reach: &Reach,
) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
    match reach::within(connection, "s.repository_id", 1, reach) {
        Some((condition, map)) => list_where(connection, context, &condition, vec![map]).await,
        None => list_where(connection, context, "1 = 1", vec![]).await,
    }
}

/// Reads sources by a condition; rows that cannot be read are left out and logged.
async fn list_where(
    connection: &impl ConnectionTrait,
    context: &Context,
    condition: &str,
    values: Vec<Value>,
) -> Result<Vec<(RepositoryId, Vec<Source>)>, StoreError> {
    let text = format!("{SOURCE} where {condition} order by s.repository_id, s.id");
    let found: Vec<SourceRow> = rows::readable(connection, "source", &text, values.clone()).await?;
    let text = format!(
        "select w.source_id, w.app_id, s.repository_id, w.selector_kind, w.selector_value, w.mode,
         v.text as view, c.branch, c.held
         from watch w join source s on s.id = w.source_id join view v on v.id = w.view_id
         left join cursor c on c.watch_id = w.id
         where {condition}"
    );
    let followers: Vec<Follower> = rows::readable(connection, "watch", &text, values.clone()).await?;
    let text = format!(
        "select h.source_id, h.commit_id from head h join source s on s.id = h.source_id
         where h.fault is null and {condition}"
    );
    let heads: Vec<HeadRow> = rows::readable(connection, "head", &text, values).await?;

    let mut needs: BTreeMap<SourceId, Needs> = BTreeMap::new();
    let mut whole: BTreeSet<RepositoryId> = BTreeSet::new();
    for follower in followers {
        if !views::view(&follower.view).is_ok_and(|view| view.is_narrow()) {
            whole.insert(follower.repository_id.clone());
        }
        needs.entry(follower.source_id.clone()).or_default().add(follower);
    }
    for head in heads {
        needs.entry(head.source_id).or_default().haves.insert(head.commit_id);
    }
    let mut repositories: BTreeMap<RepositoryId, Vec<Source>> = BTreeMap::new();
    for row in found {
        let Some(remote) = rows::readable_or_logged(row.remote(context)) else { continue };
        let needs = needs.remove(&row.id).unwrap_or_default();
        let is_whole = whole.contains(&row.repository_id);
        // Most repositories have one source. A list that grows has room for four at once: 9 MiB more at a
        // start with 10,000 repositories.
        let sources = repositories.entry(row.repository_id).or_insert_with(|| Vec::with_capacity(1));
        sources.push(Source {
            id: row.id,
            remote: Remote { apps: needs.apps.into_iter().collect(), ..remote },
            patterns: patterns_of(needs.patterns.into_values()),
            followed: Followed {
                selectors: needs.selectors.into_iter().collect(),
                branches: needs.branches.into_iter().collect(),
            },
            extent: if is_whole { Extent::Whole } else { Extent::Trees },
            every: needs.every,
            haves: needs.haves.into_iter().collect(),
            last_change: Timestamp(row.last_change),
            hooked_at: row.hooked_at.map(Timestamp),
        });
    }
    Ok(repositories.into_iter().collect())
}

/// The needs of a source's watches.
#[derive(Default)]
struct Needs {
    patterns: BTreeMap<AppId, BTreeSet<String>>,
    selectors: BTreeSet<Selector>,
    branches: BTreeSet<String>,
    every: bool,
    haves: BTreeSet<ObjectId>,
    apps: BTreeSet<AppId>,
}

impl Needs {
    fn add(&mut self, follower: Follower) {
        let selector = Selector { kind: follower.selector_kind, value: follower.selector_value };
        self.branches.extend(follower.branch.clone().filter(|branch| !branch.is_empty()));
        // The default branch is asked for by name too, so that a listing always has its commit.
        let pattern = selector.ref_pattern().or(follower.branch).filter(|pattern| !pattern.is_empty());
        self.patterns.entry(follower.app_id.clone()).or_default().extend(pattern);
        self.selectors.insert(selector);
        self.every |= follower.mode == HistoryMode::Every;
        self.haves.extend(follower.held);
        self.apps.insert(follower.app_id);
    }
}

impl SourceRow {
    fn remote(&self, context: &Context) -> Result<Remote, StoreError> {
        let credential = match (&self.credential_id, &self.secret) {
            (Some(id), Some(sealed)) => Some(opened(context, id, sealed)?),
            _ => None,
        };
        Ok(Remote {
            repository: self.repository_id.clone(),
            location: location(&self.url).ok_or_else(|| undecodable("repository", "no usable address"))?,
            credential,
            apps: Vec::new(),
        })
    }
}

/// Finds or creates the repository of a normalised address.
pub(crate) async fn repository(
    connection: &impl ConnectionTrait,
    context: &Context,
    url: &str,
    at: Timestamp,
) -> Result<RepositoryId, StoreError> {
    let text = "select * from repository where url = $1";
    let found: Option<repository::Model> =
        rows::one(connection, "repository", text, vec![url.into()]).await?;
    if let Some(found) = found {
        return Ok(found.id);
    }
    if location(url).is_none() {
        return Err(StoreError::Conflict("the address of the repository cannot be read".into()));
    }
    let id = RepositoryId::new(context.random.ulid(at));
    let row = repository::Model { id: id.clone(), url: url.to_owned(), created_at: at.0, hooked_at: None };
    rows::insert(connection, "repository", vec![row]).await?;
    Ok(id)
}

/// Finds or creates the source of a repository for an app with this credential.
pub(crate) async fn source(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    repository: &RepositoryId,
    credential: Option<&Secret>,
    at: Timestamp,
) -> Result<SourceId, StoreError> {
    let credential = match credential {
        Some(secret) => Some(keep(connection, context, app, secret, at).await?),
        None => None,
    };
    let text = "select * from source where repository_id = $1
                and (credential_id = $2 or (credential_id is null and $2 is null))";
    let values = vec![repository.clone().into(), credential.clone().into()];
    if let Some(found) = rows::one::<source::Model>(connection, "source", text, values).await? {
        return Ok(found.id);
    }
    let id = SourceId::new(context.random.ulid(at));
    let row = source::Model {
        id: id.clone(),
        repository_id: repository.clone(),
        credential_id: credential,
        head_ref: None,
        last_change: at.0,
        last_error: None,
        moved_to: None,
        created_at: at.0,
    };
    rows::insert(connection, "source", vec![row]).await?;
    Ok(id)
}

/// Finds or creates the credential of an app.
async fn keep(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    secret: &Secret,
    at: Timestamp,
) -> Result<CredentialId, StoreError> {
    let fingerprints = context.keyring.fingerprints(app, secret);
    for fingerprint in &fingerprints {
        let text = "select * from credential where app_id = $1 and fingerprint = $2";
        let values = vec![app.clone().into(), fingerprint.clone().into()];
        if let Some(found) = rows::one::<credential::Model>(connection, "credential", text, values).await? {
            return Ok(found.id);
        }
    }
    let fingerprint = fingerprints.into_iter().next().expect("a keyring has a primary key");
    let id = CredentialId::new(context.random.ulid(at));
    let row = credential::Model {
        secret: context.keyring.seal(&place(id.as_str()), secret, &*context.random),
        id: id.clone(),
        app_id: app.clone(),
        fingerprint,
        created_at: at.0,
    };
    rows::insert(connection, "credential", vec![row]).await?;
    Ok(id)
}

/// Removes a source without watches, and its credential and repository if nothing else uses them.
pub(crate) async fn remove_unused(
    connection: &impl ConnectionTrait,
    id: &SourceId,
) -> Result<(), StoreError> {
    let text = "select * from source where id = $1 and not exists (select 1 from watch where source_id = $1)";
    let unused: Option<source::Model> =
        rows::one(connection, "source", text, vec![id.clone().into()]).await?;
    let Some(unused) = unused else { return Ok(()) };
    let text = "delete from breaker where kind = 'source' and id = $1";
    rows::execute(connection, "breaker", text, vec![id.clone().into()]).await?;
    rows::execute(connection, "source", "delete from source where id = $1", vec![id.clone().into()]).await?;
    if let Some(credential) = unused.credential_id {
        let text = "delete from credential where id = $1
                    and not exists (select 1 from source where credential_id = $1)";
        rows::execute(connection, "credential", text, vec![credential.into()]).await?;
    }
    let text = "delete from repository where id = $1
                and not exists (select 1 from source where repository_id = $1)";
    rows::execute(connection, "repository", text, vec![unused.repository_id.into()]).await?;
    Ok(())
}

/// Whether this error is stored already.
pub(crate) async fn has_error(
    connection: &impl ConnectionTrait,
    id: &SourceId,
    error: Option<&str>,
) -> Result<bool, StoreError> {
    let text = "select count(*) from source where id = $1
                and (last_error = $2 or (last_error is null and $2 is null))";
    let values = vec![id.clone().into(), error.into()];
    Ok(rows::number(connection, "source", text, values).await? == 1)
}

/// Remembers or forgets why the last scan failed.
pub(crate) async fn record_error(
    connection: &impl ConnectionTrait,
    id: SourceId,
    error: Option<String>,
) -> Result<(), StoreError> {
    let text = "update source set last_error = $1 where id = $2";
    match rows::execute(connection, "source", text, vec![error.into(), id.into()]).await? {
        0 => Err(StoreError::NotFound),
        _ => Ok(()),
    }
}

/// Opens the sealed secret of a credential.
pub(crate) fn opened(context: &Context, id: &CredentialId, sealed: &[u8]) -> Result<Secret, StoreError> {
    let opened = context.keyring.open_sealed(&place(id.as_str()), sealed);
    opened.map_err(|error| undecodable("credential", error))
}

fn location(url: &str) -> Option<Location> {
    if url.starts_with('/') {
        return Some(Location::Local(url.into()));
    }
    let url = Url::parse(url).ok()?;
    match url.scheme() {
        "http" | "https" => Some(Location::Http(url)),
        "file" => url.to_file_path().ok().map(Location::Local),
        _ => None,
    }
}

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "credential", column: "secret", row }
}
