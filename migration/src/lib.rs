//! The history of the database schema of Tidings, step by step. Each step has its own file with the way
//! forward and back, and runs in a transaction on both databases.

use sea_orm_migration::{
    prelude::*,
    sea_orm::{DbBackend, Statement},
};

/// The frame of a step: its statements forward and back, then the statements for PostgreSQL only. All of a
/// step runs in one transaction.
macro_rules! step {
    ($up:expr, $down:expr) => {
        step!($up, $down, postgres: &[], &[]);
    };
    ($up:expr, $down:expr, postgres: $up_on_postgres:expr, $down_on_postgres:expr) => {
        /// The step of the schema; its name is that of its file.
        #[derive(sea_orm_migration::prelude::DeriveMigrationName)]
        pub(crate) struct Migration;

        #[async_trait::async_trait]
        impl sea_orm_migration::MigrationTrait for Migration {
            fn use_transaction(&self) -> Option<bool> {
                Some(true)
            }

            async fn up(
                &self,
                manager: &sea_orm_migration::SchemaManager,
            ) -> Result<(), sea_orm_migration::DbErr> {
                $crate::run(manager, $up).await?;
                $crate::run_on_postgres(manager, $up_on_postgres).await
            }

            async fn down(
                &self,
                manager: &sea_orm_migration::SchemaManager,
            ) -> Result<(), sea_orm_migration::DbErr> {
                $crate::run(manager, $down).await?;
                $crate::run_on_postgres(manager, $down_on_postgres).await
            }
        }
    };
}

mod m20260101_000000_create_tables;
mod m20261121_190000_add_replays;
mod m20261121_193000_add_endpoint_access;
mod m20261121_200000_keep_answers;
mod m20261121_210000_find_deliveries;
mod m20261122_001500_measure_backlogs;
mod m20261122_010000_note_restorations;
mod m20261122_020000_add_access_tokens;
mod m20261122_021000_chain_audit;
mod m20261122_050000_partition_attempts;
mod m20261122_060000_key_audit;
mod m20261122_061000_find_old_attempts;
mod m20261122_063000_share_by_leases;
mod m20261122_090000_reach_replicas;
mod m20261122_091000_hand_on_keys;
mod m20261123_000100_let_letters_know_nothing;
mod m20261123_000110_count_parks;
mod m20261123_000120_date_endpoints;
mod m20261123_000130_note_announcements;
mod m20261123_000200_dismiss_letters;
mod m20261123_000210_tell_next_tries;
mod m20261123_000300_name_runners;
mod m20261123_000400_name_faults;
mod m20261123_000500_note_clients;
mod m20261124_000100_add_sinks;
mod m20261125_000100_add_ledger;
mod m20261126_000100_add_subscriptions;
mod m20261127_000100_add_mails;
mod m20261127_000200_show_statuses;
mod m20261127_000300_add_hooks;
mod m20261127_000400_add_sessions;
mod m20261128_000100_narrow_tokens;
mod m20261128_000110_sign_in_elsewhere;
mod m20261128_000200_list_newest_rounds;
mod m20261128_000300_add_tasks;
mod m20261128_000400_add_schedules;
mod m20261128_000500_mark_open_registrations;
mod m20261128_000600_add_artifacts;
mod m20261128_000700_add_callbacks;
mod m20261129_000300_find_rows_of_lists;
mod m20261129_000400_name_databases;
mod m20261129_000500_keep_claims;
mod m20261130_000100_add_task_changes;
mod m20261130_010000_find_failing_rows;
mod m20261130_020000_keep_task_ids;
mod m20261130_030000_schedule_resyncs;
mod m20261201_000100_keep_told_lines;
mod m20261201_000400_find_waiting_rows;
mod m20261201_000500_find_open_letters;

/// Every step, oldest first.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20260101_000000_create_tables::Migration),
            Box::new(m20261121_190000_add_replays::Migration),
            Box::new(m20261121_193000_add_endpoint_access::Migration),
            Box::new(m20261121_200000_keep_answers::Migration),
            Box::new(m20261121_210000_find_deliveries::Migration),
            Box::new(m20261122_001500_measure_backlogs::Migration),
            Box::new(m20261122_010000_note_restorations::Migration),
            Box::new(m20261122_020000_add_access_tokens::Migration),
            Box::new(m20261122_021000_chain_audit::Migration),
            Box::new(m20261122_050000_partition_attempts::Migration),
            Box::new(m20261122_060000_key_audit::Migration),
            Box::new(m20261122_061000_find_old_attempts::Migration),
            Box::new(m20261122_063000_share_by_leases::Migration),
            Box::new(m20261122_090000_reach_replicas::Migration),
            Box::new(m20261122_091000_hand_on_keys::Migration),
            Box::new(m20261123_000100_let_letters_know_nothing::Migration),
            Box::new(m20261123_000110_count_parks::Migration),
            Box::new(m20261123_000120_date_endpoints::Migration),
            Box::new(m20261123_000130_note_announcements::Migration),
            Box::new(m20261123_000200_dismiss_letters::Migration),
            Box::new(m20261123_000210_tell_next_tries::Migration),
            Box::new(m20261123_000300_name_runners::Migration),
            Box::new(m20261123_000400_name_faults::Migration),
            Box::new(m20261123_000500_note_clients::Migration),
            Box::new(m20261124_000100_add_sinks::Migration),
            Box::new(m20261125_000100_add_ledger::Migration),
            Box::new(m20261126_000100_add_subscriptions::Migration),
            Box::new(m20261127_000100_add_mails::Migration),
            Box::new(m20261127_000200_show_statuses::Migration),
            Box::new(m20261127_000300_add_hooks::Migration),
            Box::new(m20261127_000400_add_sessions::Migration),
            Box::new(m20261128_000100_narrow_tokens::Migration),
            Box::new(m20261128_000110_sign_in_elsewhere::Migration),
            Box::new(m20261128_000200_list_newest_rounds::Migration),
            Box::new(m20261128_000300_add_tasks::Migration),
            Box::new(m20261128_000400_add_schedules::Migration),
            Box::new(m20261128_000500_mark_open_registrations::Migration),
            Box::new(m20261128_000600_add_artifacts::Migration),
            Box::new(m20261128_000700_add_callbacks::Migration),
            Box::new(m20261129_000300_find_rows_of_lists::Migration),
            Box::new(m20261129_000400_name_databases::Migration),
            Box::new(m20261129_000500_keep_claims::Migration),
            Box::new(m20261130_000100_add_task_changes::Migration),
            Box::new(m20261130_010000_find_failing_rows::Migration),
            Box::new(m20261130_020000_keep_task_ids::Migration),
            Box::new(m20261130_030000_schedule_resyncs::Migration),
            Box::new(m20261201_000100_keep_told_lines::Migration),
            Box::new(m20261201_000400_find_waiting_rows::Migration),
            Box::new(m20261201_000500_find_open_letters::Migration),
        ]
    }
}

/// Runs statements one after another. `{bytes}` and `{rising}` stand for the types of bytes and of a number
/// that rises with each row, which the two databases name differently. `{one tree}` makes a table without
/// rowid on SQLite.
async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let (bytes, rising, one_tree) = match connection.get_database_backend() {
        DbBackend::Postgres => ("bytea", "bigint generated always as identity primary key", ""),
        _ => ("blob", "integer primary key autoincrement", " without rowid"),
    };
    for statement in statements {
        let text = statement.replace("{bytes}", bytes).replace("{rising}", rising);
        let text = text.replace(" {one tree}", one_tree);
        connection.execute_unprepared(&text).await?;
    }
    Ok(())
}

/// Refuses to take a step back while rows need it, because the older version would lose their data. `used`
/// counts those rows; `says` names them to a person, with the remedy.
async fn refuse_while(
    manager: &SchemaManager<'_>,
    used: &str,
    says: impl FnOnce(i64) -> String,
) -> Result<(), DbErr> {
    match number(manager, used).await? {
        0 => Ok(()),
        count => Err(DbErr::Custom(says(count))),
    }
}

/// The number that a statement asks for; 0 where it finds no row.
async fn number(manager: &SchemaManager<'_>, text: &str) -> Result<i64, DbErr> {
    let connection = manager.get_connection();
    let statement = Statement::from_string(connection.get_database_backend(), text);
    let row = connection.query_one_raw(statement).await?;
    // The numbers of pragmas have 32 bits.
    row.map_or(Ok(0), |row| {
        row.try_get_by_index::<i64>(0).or_else(|_| row.try_get_by_index::<i32>(0).map(i64::from))
    })
}

/// Runs statements on PostgreSQL; does nothing on SQLite.
async fn run_on_postgres(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    match manager.get_database_backend() {
        DbBackend::Postgres => run(manager, statements).await,
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_named_as_its_file() {
        let names: Vec<String> = Migrator::migrations().iter().map(|step| step.name().to_owned()).collect();
        let listed = include_str!("lib.rs").lines().filter_map(|line| line.strip_prefix("mod m"));
        let listed: Vec<String> = listed.map(|line| format!("m{}", line.trim_end_matches(';'))).collect();
        assert_eq!(names, listed);
    }
}
