//! The database without us: the same driver, tables, indexes and durability.

use std::{path::Path, time::Duration};

use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tidings_entity::id::{AppId, QueueId, Sha256Hash, TaskId};
use ulid::Ulid;

use crate::{PAYLOAD, RESULT};

async fn open(file: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("secure_delete", "ON");
    SqliteConnection::connect_with(&options).await.expect("the file opens")
}

/// Creates, claims and completes tasks, each as one transaction of prepared statements for a batch.
pub(crate) async fn work(file: &Path, app: &AppId, batches: usize, batch: usize) {
    let mut connection = open(file).await;
    let queue = QueueId::of(app, "work");
    let insert =
        "insert into queue (id, app_id, command, settings, is_paused, waiting, ready, aside, claimed,
        succeeded, failed, dead, cancelled, bytes, permits_until, created_at)
        values (?, ?, 'work', '{}', false, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)";
    sqlx::query(insert)
        .bind(queue.as_str())
        .bind(app.as_str())
        .execute(&mut connection)
        .await
        .expect("a queue");
    let mut rank = 0_i64;
    for _ in 0..batches {
        create(&mut connection, app, &queue, batch, &mut rank).await;
        let claimed = claim(&mut connection, &queue, batch).await;
        assert_eq!(claimed.len(), batch);
        complete(&mut connection, &queue, &claimed).await;
    }
}

async fn create(
    connection: &mut SqliteConnection,
    app: &AppId,
    queue: &QueueId,
    batch: usize,
    rank: &mut i64,
) {
    let mut transaction = connection.begin().await.expect("begun");
    for _ in 0..batch {
        *rank += 1;
        let id = TaskId::new(Ulid::from_parts(1, u128::from(rank.unsigned_abs())));
        let insert = "insert into task (id, queue_id, app_id, state, rank, priority, attempts, abandons,
            max_attempts, origin_kind, origin, depth, bytes, created_at, updated_at)
            values (?, ?, ?, 'ready', ?, 4, 0, 0, 5, 'person', 'a producer', 0, ?, ?, ?)";
        sqlx::query(insert)
            .bind(id.as_str())
            .bind(queue.as_str())
            .bind(app.as_str())
            .bind(*rank)
            .bind(i64::try_from(PAYLOAD.len()).expect("small"))
            .bind(*rank)
            .bind(*rank)
            .execute(&mut *transaction)
            .await
            .expect("a task");
        sqlx::query("insert into task_body (task_id, payload) values (?, ?)")
            .bind(id.as_str())
            .bind(PAYLOAD)
            .execute(&mut *transaction)
            .await
            .expect("a body");
    }
    count(&mut transaction, queue, "ready = ready + ?", batch).await;
    transaction.commit().await.expect("committed");
}

async fn claim(connection: &mut SqliteConnection, queue: &QueueId, batch: usize) -> Vec<String> {
    let mut transaction = connection.begin().await.expect("begun");
    let select = "select t.id, b.payload from task t join task_body b on b.task_id = t.id
        where t.queue_id = ? and t.state = 'ready' order by t.rank, t.id limit ?";
    let rows = sqlx::query(select)
        .bind(queue.as_str())
        .bind(i64::try_from(batch).expect("small"))
        .fetch_all(&mut *transaction)
        .await
        .expect("rows");
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    for id in &ids {
        let update = "update task set state = 'claimed', attempts = attempts + 1, claim = ?, worker = ?,
            claimed_at = ?, wake_at = ?, updated_at = ? where id = ?";
        sqlx::query(update)
            .bind(Sha256Hash::of(id.as_bytes()).to_string())
            .bind("a worker")
            .bind(1_i64)
            .bind(300_000_i64)
            .bind(1_i64)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .expect("claimed");
    }
    count(&mut transaction, queue, "ready = ready - ?1, claimed = claimed + ?1", batch).await;
    transaction.commit().await.expect("committed");
    ids
}

async fn complete(connection: &mut SqliteConnection, queue: &QueueId, claimed: &[String]) {
    let mut transaction = connection.begin().await.expect("begun");
    for id in claimed {
        let update = "update task set state = 'succeeded', wake_at = ?, ended_at = ?, updated_at = ?
            where id = ? and claim = ?";
        sqlx::query(update)
            .bind(604_800_000_i64)
            .bind(2_i64)
            .bind(2_i64)
            .bind(id)
            .bind(Sha256Hash::of(id.as_bytes()).to_string())
            .execute(&mut *transaction)
            .await
            .expect("ended");
        sqlx::query("update task_body set result = ? where task_id = ?")
            .bind(RESULT)
            .bind(id)
            .execute(&mut *transaction)
            .await
            .expect("a result");
    }
    count(&mut transaction, queue, "claimed = claimed - ?1, succeeded = succeeded + ?1", claimed.len()).await;
    transaction.commit().await.expect("committed");
}

async fn count(connection: &mut SqliteConnection, queue: &QueueId, change: &str, by: usize) {
    let update = format!("update queue set {change} where id = '{}'", queue.as_str());
    sqlx::query(sqlx::AssertSqlSafe(update))
        .bind(i64::try_from(by).expect("small"))
        .execute(connection)
        .await
        .expect("counted");
}

/// Makes a backlog out of the one ready task that is there.
pub(crate) async fn multiply(file: &Path, count: usize) {
    let mut connection = open(file).await;
    let mut transaction = connection.begin().await.expect("begun");
    let insert = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?)
        insert into task (id, queue_id, app_id, state, rank, priority, attempts, abandons, max_attempts,
          origin_kind, origin, depth, bytes, created_at, updated_at)
        select 'tsk_' || printf('%026d', i), queue_id, app_id, state, rank + i, priority, 0, 0, max_attempts,
          origin_kind, origin, depth, bytes, created_at, updated_at
        from n, (select * from task limit 1)";
    let count = i64::try_from(count).expect("small");
    sqlx::query(insert).bind(count).execute(&mut *transaction).await.expect("tasks");
    let bodies = "insert into task_body (task_id, payload)
        select id, '{}' from task where id not in (select task_id from task_body)";
    sqlx::query(bodies).execute(&mut *transaction).await.expect("bodies");
    let counts = "update queue set ready = ready + ?1, bytes = bytes + ?1 * 2";
    sqlx::query(counts).bind(count).execute(&mut *transaction).await.expect("counted");
    transaction.commit().await.expect("committed");
}
