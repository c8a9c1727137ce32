//! What Tidings stores: SeaORM entities, one table a file, and the newtypes of every id.
//!
//! This crate depends on nothing else of ours. `actors` uses only [`id`] and the enums of
//! [`kind`]; the entities themselves are for the SQL in the `tidings` crate's `store`.

pub mod id;
pub mod kind;
