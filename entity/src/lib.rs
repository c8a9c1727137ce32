//! What Tidings stores: SeaORM entities, one table a file, and the newtypes of every id.
//!
//! This crate depends on nothing else of ours. `actors` uses only [`id`] and the enums of
//! [`kind`]; the entities themselves are for the SQL in the `tidings` crate's `store`.

pub mod access_token;
pub mod app;
pub mod app_key;
pub mod attempt;
pub mod audit;
pub mod blob;
pub mod breaker;
pub mod canary;
pub mod credential;
pub mod cursor;
pub mod dead_letter;
pub mod entry;
pub mod entry_fold;
pub mod head;
pub mod id;
pub mod idempotency;
pub mod key_share;
pub mod kind;
pub mod lease;
pub mod ledger;
pub mod receipt;
pub mod redrive;
pub mod replica;
pub mod repository;
pub mod round;
pub mod round_base;
pub mod settled;
pub mod sink;
pub mod source;
pub mod subscription;
pub mod view;
pub mod watch;
