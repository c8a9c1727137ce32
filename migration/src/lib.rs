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
        ]
    }
}
