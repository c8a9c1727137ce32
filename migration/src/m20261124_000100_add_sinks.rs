//! A watch may have a sink of its own beside that of its app, and an app may watch the same refs of a
//! repository more than once, under aliases. No row moves: without a sink of its own a watch goes to the
//! sink of its
//! app.
//!
//! SQLite takes no unique constraint out of a table, so there `watch` is made anew. The rows that refer to
//! it must outlive that: foreign keys are off while the step runs.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The step.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const SINK: &str = "create table sink (
    id text primary key, app_id text not null references app(id) on delete cascade, kind text not null,
    address text, access {bytes}, signing_key {bytes}, delivery text not null, disabled text,
    since bigint not null, created_at bigint not null)";

const WATCH_COLUMNS: &str =
    "id, app_id, repository_id, source_id, shown_url, owner, name, is_private, selector_kind,
    selector_value, view_id, mode, on_branch_gone, state, reason, deliver_after, created_at";

/// The table `watch` as it is made on SQLite; what stands for `{more}` is between its columns and its key.
const WATCH: &str = "create table watch_made_anew (
    id text primary key, app_id text not null references app(id) on delete cascade,
    repository_id text not null references repository(id),
    source_id text not null references source(id), shown_url text not null, owner text not null,
    name text not null, is_private boolean not null, selector_kind text not null,
    selector_value text not null, view_id text not null references view(id), mode text not null,
    on_branch_gone text not null, state text not null, reason text, deliver_after bigint not null,
    created_at bigint not null, {more})";

const WATCH_INDEXES: [&str; 3] = [
    "create index watch_source on watch(source_id)",
    "create index watch_repository on watch(repository_id)",
    "create index watch_view on watch(view_id)",
];

const INDEXES: [&str; 2] = [
    "create index watch_sink on watch(sink_id) where sink_id is not null",
    "create index sink_app on sink(app_id, id)",
];

const UP_ON_POSTGRES: [&str; 4] = [
    "alter table watch add column alias text not null default ''",
    "alter table watch add column sink_id text references sink(id)",
    "alter table watch drop constraint watch_app_id_repository_id_selector_kind_selector_value_key",
    "alter table watch add constraint watch_key
     unique (app_id, repository_id, selector_kind, selector_value, alias)",
];

const DOWN_ON_POSTGRES: [&str; 5] = [
    "alter table watch drop constraint watch_key",
    "alter table watch drop column sink_id",
    "alter table watch drop column alias",
    "alter table watch add constraint watch_app_id_repository_id_selector_kind_selector_value_key
     unique (app_id, repository_id, selector_kind, selector_value)",
    "drop table sink",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let is_postgres = manager.get_database_backend() == DbBackend::Postgres;
        let bytes = if is_postgres { "bytea" } else { "blob" };
        crate::run(manager, &[&SINK.replace("{bytes}", bytes)]).await?;
        if is_postgres {
            crate::run(manager, &UP_ON_POSTGRES).await?;
        } else {
            let more = "alias text not null default '', sink_id text references sink(id),
                        unique (app_id, repository_id, selector_kind, selector_value, alias)";
            rebuild(manager, more).await?;
        }
        crate::run(manager, &INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        refuse_while_used(manager).await?;
        if manager.get_database_backend() == DbBackend::Postgres {
            return crate::run(manager, &DOWN_ON_POSTGRES).await;
        }
        rebuild(manager, "unique (app_id, repository_id, selector_kind, selector_value)").await?;
        crate::run(manager, &["drop table sink"]).await
    }
}

/// Makes `watch` anew with other columns at its end.
async fn rebuild(manager: &SchemaManager<'_>, more: &str) -> Result<(), DbErr> {
    let has_keys = number(manager, "select foreign_keys from pragma_foreign_keys").await? != 0;
    if has_keys && number(manager, "select count(*) from watch").await? > 0 {
        let text = "foreign keys are on: making the table watch anew would delete the rows that refer to it";
        return Err(DbErr::Custom(text.to_owned()));
    }
    let copy = format!("insert into watch_made_anew ({WATCH_COLUMNS}) select {WATCH_COLUMNS} from watch");
    let made = WATCH.replace("{more}", more);
    let statements: [&str; 4] =
        [&made, &copy, "drop table watch", "alter table watch_made_anew rename to watch"];
    crate::run(manager, &statements).await?;
    crate::run(manager, &WATCH_INDEXES).await
}

/// What the version before has no place for must not be lost.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let text = "select count(*) from watch where alias <> '' or sink_id is not null";
    match number(manager, text).await? {
        0 => Ok(()),
        count => Err(DbErr::Custom(format!(
            "{count} watches have a watch_name or a sink of their own, which the version before does not \
             know: unwatch them first"
        ))),
    }
}

async fn number(manager: &SchemaManager<'_>, text: &str) -> Result<i64, DbErr> {
    let connection = manager.get_connection();
    let statement =
        sea_orm_migration::sea_orm::Statement::from_string(connection.get_database_backend(), text);
    let row = connection.query_one_raw(statement).await?;
    row.map_or(Ok(0), |row| {
        row.try_get_by_index::<i64>(0).or_else(|_| row.try_get_by_index::<i32>(0).map(i64::from))
    })
}
