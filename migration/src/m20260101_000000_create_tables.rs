//! All tables of the first version. Written as SQL that SQLite and PostgreSQL both read, so that a
//! step never changes when an entity does; only the type for bytes differs between the two.

use sea_orm_migration::prelude::*;

/// The step of the schema; its name is that of this file.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// The tables in such an order that each comes after the tables that it references.
const TABLES: &[(&str, &str)] = &[
    (
        "repository",
        "id text primary key, url text not null unique, hooked_at bigint, created_at bigint not null",
    ),
    (
        "app",
        "id text primary key, name text not null, email text not null, base_url text, website text,
         description text, token_public_id text not null unique, token_hash text not null,
         delivery text not null, disabled text, permits_until bigint, created_at bigint not null",
    ),
    (
        "app_key",
        "app_id text not null references app(id) on delete cascade, ordinal bigint not null,
         secret {bytes} not null, created_at bigint not null, expires_at bigint,
         primary key (app_id, ordinal)",
    ),
    (
        "credential",
        "id text primary key, app_id text not null references app(id) on delete cascade,
         fingerprint text not null, secret {bytes} not null, created_at bigint not null,
         unique (app_id, fingerprint)",
    ),
    (
        "source",
        "id text primary key, repository_id text not null references repository(id),
         credential_id text references credential(id), head_ref text, last_change bigint not null,
         last_error text, moved_to text, created_at bigint not null, unique (repository_id, credential_id)",
    ),
    (
        "head",
        "source_id text not null references source(id) on delete cascade, ref_name text not null,
         commit_id text not null, moved_at bigint not null, primary key (source_id, ref_name)",
    ),
    ("view", "id text primary key, text text not null, created_at bigint not null"),
    (
        "watch",
        "id text primary key, app_id text not null references app(id) on delete cascade,
         repository_id text not null references repository(id),
         source_id text not null references source(id), shown_url text not null, owner text not null,
         name text not null, is_private boolean not null, selector_kind text not null,
         selector_value text not null, view_id text not null references view(id), mode text not null,
         on_branch_gone text not null, state text not null, reason text, deliver_after bigint not null,
         created_at bigint not null,
         unique (app_id, repository_id, selector_kind, selector_value)",
    ),
    (
        "cursor",
        "id text primary key, watch_id text not null references watch(id) on delete cascade,
         slot text not null, branch text not null, held text, held_view text references view(id),
         last_round bigint not null, open_round bigint, state text not null, reason text,
         streak integer not null, acknowledged boolean not null, last_was_redrive boolean not null,
         guard_waived boolean not null,
         resync boolean, deletes_unknown boolean not null, skip_round bigint, skip_position bigint,
         cancel_round bigint,
         behind_since bigint, created_at bigint not null, unique (watch_id, slot),
         check ((held is null) = (held_view is null))",
    ),
    (
        "round",
        "cursor_id text not null references cursor(id) on delete cascade, number bigint not null,
         kind text not null, held text, held_view text references view(id), target text,
         target_view text references view(id), rules integer not null, deletes bigint not null,
         creates bigint not null, updates bigint not null, total bigint not null, digest text not null,
         branch text not null, url text not null, format text not null, history_rewritten boolean not null,
         skipped_commits boolean not null, complete boolean not null, position bigint not null,
         began_at bigint not null, ended_at bigint, primary key (cursor_id, number),
         check (position between 0 and total)",
    ),
    (
        "round_base",
        "cursor_id text not null references cursor(id) on delete cascade, round bigint not null,
         ordinal integer not null, commit_id text not null, view_id text not null references view(id),
         primary key (cursor_id, round, ordinal), unique (cursor_id, round, commit_id, view_id)",
    ),
    (
        "settled",
        "cursor_id text not null references cursor(id) on delete cascade, round bigint not null,
         from_position bigint not null, to_position bigint not null, settled_at bigint not null,
         primary key (cursor_id, round, from_position)",
    ),
    (
        "dead_letter",
        "id text primary key, app_id text not null references app(id) on delete cascade,
         watch_id text not null references watch(id) on delete cascade,
         cursor_id text not null references cursor(id) on delete cascade, round bigint not null,
         position bigint not null, path {bytes} not null, operation text not null,
         delivery_id text not null, reason text not null, status text not null,
         state_kind text not null, state_mode integer, state_blob text, http_status integer,
         excerpt text not null, bound_round bigint, redrive_id text, created_at bigint not null,
         closed_at bigint",
    ),
    (
        "redrive",
        "id text primary key, app_id text not null references app(id) on delete cascade,
         filter text not null, marked_to text, through text not null, is_marking boolean not null,
         asked bigint not null, cancelled bigint not null, created_at bigint not null",
    ),
    (
        "attempt",
        "owner_kind text not null, owner_id text not null, round bigint not null,
         position bigint not null, number integer not null, delivery_id text not null, status integer,
         item_failure boolean not null, excerpt text not null, took_ms bigint not null,
         ended_at bigint not null, primary key (owner_kind, owner_id, round, position, number)",
    ),
    (
        "blob",
        "id text primary key, sha256 text not null, size bigint not null, is_text boolean not null,
         used_at bigint not null",
    ),
    (
        "breaker",
        "kind text not null, id text not null, failures integer not null, opened_at bigint,
         probe_at bigint, last_error text not null, primary key (kind, id)",
    ),
    ("lease", "shard text primary key, epoch bigint not null, taken_at bigint not null"),
    (
        "idempotency",
        "owner text not null, key_hash text not null, request_hash text not null, status integer,
         answer {bytes}, made_app text, created_at bigint not null, primary key (owner, key_hash),
         check ((status is null) = (answer is null))",
    ),
    (
        "receipt",
        "id text primary key, provider text not null, delivery_id text not null, event text not null,
         news text not null, ref_name text, addresses text not null, repositories text not null,
         verdict text not null, reason text not null, times bigint not null, noted boolean not null,
         ordinal bigint not null, received_at bigint not null, replayed_at bigint",
    ),
    (
        "audit",
        "id {rising}, at bigint not null, actor text not null, action text not null,
         target text not null, result text not null",
    ),
    ("canary", "id integer primary key, sealed {bytes} not null"),
];

const INDEXES: &[&str] = &[
    "create unique index source_anonymous on source(repository_id) where credential_id is null",
    "create index source_credential on source(credential_id)",
    "create index source_moved on source(moved_to) where moved_to is not null",
    "create index watch_source on watch(source_id)",
    "create index watch_repository on watch(repository_id)",
    "create index watch_view on watch(view_id)",
    "create index cursor_held_view on cursor(held_view)",
    "create index cursor_open on cursor(id) where open_round is not null",
    "create index round_ended on round(ended_at) where ended_at is not null",
    "create index round_held_view on round(held_view)",
    "create index round_target_view on round(target_view)",
    "create index round_base_view on round_base(view_id)",
    "create unique index dead_letter_open on dead_letter(cursor_id, path)
     where status in ('open', 'redrive_requested')",
    "create index dead_letter_bound on dead_letter(cursor_id, bound_round) where bound_round is not null",
    "create index dead_letter_round on dead_letter(cursor_id, round, position)",
    "create index dead_letter_app on dead_letter(app_id, id)",
    "create index dead_letter_watch on dead_letter(watch_id)",
    "create index dead_letter_requested on dead_letter(app_id, cursor_id, path)
     where status = 'redrive_requested'",
    "create index dead_letter_redrive on dead_letter(redrive_id, status) where redrive_id is not null",
    "create index redrive_app on redrive(app_id, id)",
    "create index redrive_marking on redrive(id) where is_marking",
    "create index dead_letter_unavailable on dead_letter(id)
     where status = 'open' and reason = 'content_unavailable'",
    "create index dead_letter_closed on dead_letter(closed_at) where closed_at is not null",
    "create index blob_used on blob(used_at)",
    "create index idempotency_age on idempotency(created_at)",
    "create index idempotency_made on idempotency(made_app) where made_app is not null",
    "create unique index receipt_delivery on receipt(provider, delivery_id) where not noted",
    "create index receipt_ordinal on receipt(noted, ordinal)",
    "create index receipt_age on receipt(received_at)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, columns) in TABLES {
            crate::run(manager, &[&format!("create table {name} ({columns})")]).await?;
        }
        crate::run(manager, INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in TABLES.iter().rev() {
            crate::run(manager, &[&format!("drop table {name}")]).await?;
        }
        Ok(())
    }
}
