//! How the storage of Tidings came to be, step by step. Each step has its own file and its way
//! back, and runs in a transaction on every database.

use sea_orm_migration::prelude::*;

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
        ]
    }
}

/// Runs statements that every database takes, one after another.
async fn run(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager.get_connection().execute_unprepared(statement).await?;
    }
    Ok(())
}
