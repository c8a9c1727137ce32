//! Keyed requests: each runs once, and its answer can be repeated. Only the hash of a key is stored, and an
//! answer is sealed, because it may hold the token of an app.
//!
//! The row of a running request names its process. On SQLite that is this process, or one that has ended. On
//! PostgreSQL it may be another replica, whose request counts as running as long as the replica renews its
//! row. A request of a process that died begins again, on the replica that is asked next.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use sea_orm::ConnectionTrait;
use tidings_actors::{
    model::secret::Secret,
    ports::{ANSWERS_MAX, Begun, KeyedRequest, StoreError, StoredAnswer},
    time::Timestamp,
};
use tidings_entity::{
    id::{AppId, ReplicaId, Sha256Hash},
    idempotency,
};
use tidings_secrets::SealedField;

use crate::{
    Context,
    database::{error::undecodable, rows},
};

/// How long a request of a version that named no process counts as running.
const UNNAMED_RUNS: Duration = Duration::from_secs(60);

/// The number of requests of each owner in the table, counted once and then kept up to date: a count for each
/// request would cost more than the request. An owner without recent requests is not in it.
pub(crate) struct Kept {
    most: u64,
    of_owners: Mutex<HashMap<AppId, u64>>,
}

impl Default for Kept {
    fn default() -> Self {
        Self::at_most(ANSWERS_MAX)
    }
}

impl Kept {
    pub(crate) fn at_most(most: u64) -> Self {
        Self { most, of_owners: Mutex::default() }
    }

    /// Counts one more request of an owner. Returns the number, if it is known.
    fn one_more(&self, owner: &AppId) -> Option<u64> {
        let mut owners = self.of_owners.lock();
        owners.get_mut(owner).map(|count| {
            *count += 1;
            *count
        })
    }

    fn counted(&self, owner: &AppId, count: u64) {
        self.of_owners.lock().insert(owner.clone(), count);
    }
}

/// Removes the oldest answers of an owner with too many: a tenth more than necessary, so that the next
/// requests need no removal. Counts of transactions that failed are corrected then.
async fn bound(connection: &impl ConnectionTrait, kept: &Kept, owner: &AppId) -> Result<(), StoreError> {
    if kept.one_more(owner).is_some_and(|count| count <= kept.most) {
        return Ok(());
    }
    let text = "select count(*) from idempotency where owner = $1";
    let count = rows::number(connection, "idempotency", text, vec![owner.clone().into()]).await?;
    let count = rows::unsigned("idempotency", count)?;
    let too_many = count.saturating_sub(kept.most);
    let mut gone = 0;
    if too_many > 0 {
        let text = "delete from idempotency where owner = $1 and key_hash in (
            select key_hash from idempotency where owner = $1 and status is not null
            order by created_at, key_hash limit $2)";
        let values = vec![owner.clone().into(), rows::signed(too_many + kept.most / 10).into()];
        gone = rows::execute(connection, "idempotency", text, values).await?;
    }
    kept.counted(owner, count.saturating_sub(gone));
    Ok(())
}

/// Begins a request, or returns the state of an earlier request with the same key.
pub(crate) async fn begin(
    connection: &impl ConnectionTrait,
    context: &Context,
    request: &KeyedRequest,
    at: Timestamp,
    runner: &ReplicaId,
) -> Result<Begun, StoreError> {
    let key = RequestKey::of(request);
    let text = "select * from idempotency where owner = $1 and key_hash = $2";
    let found = rows::one::<idempotency::Model>(connection, "idempotency", text, key.values()).await?;
    let Some(row) = found else {
        let row = idempotency::Model {
            owner: key.owner,
            key_hash: key.hash,
            request_hash: request.hash,
            status: None,
            answer: None,
            made_app: None,
            created_at: at.0,
            runner: Some(runner.clone()),
        };
        rows::insert(connection, "idempotency", vec![row]).await?;
        bound(connection, &context.kept, &request.owner).await?;
        return Ok(Begun::New);
    };
    if row.request_hash != request.hash {
        return Ok(Begun::Other);
    }
    if let (Some(status), Some(sealed)) = (row.status, &row.answer) {
        return open(context, &key, status, sealed).map(Begun::Answered);
    }
    let is_running = match &row.runner {
        Some(of) if of == runner => true,
        Some(of) => lives(connection, of, at).await?,
        None => Timestamp(row.created_at).is_within(UNNAMED_RUNS, at),
    };
    if is_running {
        return Ok(Begun::Running);
    }
    let text = "update idempotency set created_at = $3, runner = $4 where owner = $1 and key_hash = $2";
    let values = [key.values(), vec![at.0.into(), runner.clone().into()]].concat();
    rows::execute(connection, "idempotency", text, values).await?;
    Ok(Begun::New)
}

/// Whether a replica renewed its row recently; on SQLite there are no replicas.
async fn lives(connection: &impl ConnectionTrait, id: &ReplicaId, at: Timestamp) -> Result<bool, StoreError> {
    let text = "select count(*) from replica where id = $1 and seen_at + life_ms > $2";
    Ok(rows::number(connection, "replica", text, vec![id.clone().into(), at.0.into()]).await? > 0)
}

/// Stores the answer of a running request, or frees its key.
pub(crate) async fn end(
    connection: &impl ConnectionTrait,
    context: &Context,
    request: &KeyedRequest,
    answer: Option<&StoredAnswer>,
) -> Result<(), StoreError> {
    if let Some(answer) = answer {
        return write(connection, context, request, answer, None).await;
    }
    let text = "delete from idempotency
                where owner = $1 and key_hash = $2 and request_hash = $3 and status is null";
    let values = [RequestKey::of(request).values(), vec![request.hash.into()]].concat();
    rows::execute(connection, "idempotency", text, values).await.map(drop)
}

/// Ends the request that created an app.
pub(crate) async fn end_making(
    connection: &impl ConnectionTrait,
    context: &Context,
    app: &AppId,
    (request, answer): &(KeyedRequest, StoredAnswer),
) -> Result<(), StoreError> {
    write(connection, context, request, answer, Some(app)).await
}

/// Removes the requests of an app, and the request that created it.
pub(crate) async fn erase(connection: &impl ConnectionTrait, app: &AppId) -> Result<(), StoreError> {
    let text = "delete from idempotency where owner = $1 or made_app = $1";
    rows::execute(connection, "idempotency", text, vec![app.clone().into()]).await.map(drop)
}

async fn write(
    connection: &impl ConnectionTrait,
    context: &Context,
    request: &KeyedRequest,
    answer: &StoredAnswer,
    made: Option<&AppId>,
) -> Result<(), StoreError> {
    let key = RequestKey::of(request);
    let plain = format!("{}\n{}", answer.content_type.as_deref().unwrap_or_default(), answer.body.expose());
    let sealed = context.keyring.seal(&place(&key.row()), &Secret::new(plain), &*context.random);
    let text = "update idempotency set status = $4, answer = $5, made_app = $6
                where owner = $1 and key_hash = $2 and request_hash = $3 and status is null";
    let ended = vec![
        request.hash.into(),
        i32::from(answer.status).into(),
        sealed.into(),
        made.map(|app| app.as_str().to_owned()).into(),
    ];
    rows::execute(connection, "idempotency", text, [key.values(), ended].concat()).await.map(drop)
}

fn open(context: &Context, key: &RequestKey, status: i32, sealed: &[u8]) -> Result<StoredAnswer, StoreError> {
    let unreadable = |reason: &str| undecodable("idempotency", reason);
    let plain = context
        .keyring
        .open_sealed(&place(&key.row()), sealed)
        .map_err(|error| undecodable("idempotency", error))?;
    let (content_type, body) =
        plain.expose().split_once('\n').ok_or_else(|| unreadable("an answer has no content type"))?;
    Ok(StoredAnswer {
        status: u16::try_from(status).map_err(|_| unreadable("a status is no status"))?,
        content_type: (!content_type.is_empty()).then(|| content_type.to_owned()),
        body: Secret::new(body.to_owned()),
    })
}

/// The key of a row.
struct RequestKey {
    owner: AppId,
    hash: Sha256Hash,
}

impl RequestKey {
    fn of(request: &KeyedRequest) -> Self {
        Self { owner: request.owner.clone(), hash: Sha256Hash::of(request.key.as_bytes()) }
    }

    fn values(&self) -> Vec<sea_orm::Value> {
        vec![self.owner.clone().into(), self.hash.into()]
    }

    fn row(&self) -> String {
        format!("{}/{}", self.owner, self.hash)
    }
}

fn place(row: &str) -> SealedField<'_> {
    SealedField { table: "idempotency", column: "answer", row }
}
