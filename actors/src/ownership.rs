//! Which replica works on which repositories: leases of shards, and the terms under which an actor may
//! write.

pub mod leases;
pub mod shards;
pub mod terms;
