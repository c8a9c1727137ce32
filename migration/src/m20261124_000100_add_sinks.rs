//! A watch may have its own sink instead of that of its app, and an app may watch the same refs of a
//! repository more than once, under aliases. Existing watches keep the sink of their app.
//!
//! SQLite cannot remove a unique constraint from a table, so `watch` is created again there. The rows that
//! reference it must stay: foreign keys are off while the step runs.

use sea_orm_migration::{prelude::*, sea_orm::DbBackend};

/// The step of the schema; its name is that of this file.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const SINK: &str = "create table sink (
    id text primary key, app_id text not null references app(id) on delete cascade, kind text not null,
    address text, access {bytes}, signing_key {bytes}, delivery text not null, disabled text,
    since bigint not null, created_at bigint not null)";

const WATCH_COLUMNS: &str =
    "id, app_id, repository_id, source_id, shown_url, owner, name, is_private, selector_kind,
    selector_value, view_id, mode, on_branch_gone, state, reason, deliver_after, created_at";

/// The table `watch` as it is created on SQLite; `{more}` stands for further columns before the keys.
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

/// Creates `watch` again with further columns at its end.
async fn rebuild(manager: &SchemaManager<'_>, more: &str) -> Result<(), DbErr> {
    let has_keys = crate::number(manager, "select foreign_keys from pragma_foreign_keys").await? != 0;
    if has_keys && crate::number(manager, "select count(*) from watch").await? > 0 {
        let text = "foreign keys are on: rebuilding the table watch would delete the rows that refer to it";
        return Err(DbErr::Custom(text.to_owned()));
    }
    let copy = format!("insert into watch_made_anew ({WATCH_COLUMNS}) select {WATCH_COLUMNS} from watch");
    let made = WATCH.replace("{more}", more);
    let statements: [&str; 4] =
        [&made, &copy, "drop table watch", "alter table watch_made_anew rename to watch"];
    crate::run(manager, &statements).await?;
    crate::run(manager, &WATCH_INDEXES).await
}

/// Refuses the step back while rows use the new columns: the older version would lose their data.
async fn refuse_while_used(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    crate::refuse_while(
        manager,
        "select count(*) from watch where alias <> '' or sink_id is not null",
        |count| {
            format!(
                "{count} watches have a watch_name or a sink of their own, which the version before does not \
             know: unwatch them first"
            )
        },
    )
    .await
}
