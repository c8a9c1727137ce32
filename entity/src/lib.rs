//! The tables of Tidings: SeaORM entities, one table a file, and the newtype of every id.
//!
//! This crate depends on no other crate of Tidings. `actors` uses only [`id`] and the enums of [`kind`]; the
//! entities themselves are for the SQL in the `tidings` crate's `store`.

pub mod access_token;
pub mod app;
pub mod app_key;
pub mod artifact;
pub mod attempt;
pub mod audit;
pub mod blob;
pub mod breaker;
pub mod canary;
pub mod commit_status;
pub mod credential;
pub mod cursor;
pub mod dead_letter;
pub mod entry;
pub mod entry_fold;
pub mod head;
pub mod hook;
pub mod id;
pub mod idempotency;
pub mod key_share;
pub mod kind;
pub mod lease;
pub mod ledger;
pub mod narrowed_token;
pub mod queue;
pub mod receipt;
pub mod receipt_body;
pub mod redrive;
pub mod replica;
pub mod repository;
pub mod round;
pub mod round_base;
pub mod schedule;
pub mod session;
pub mod settled;
pub mod sign_in;
pub mod sink;
pub mod source;
pub mod subscription;
pub mod task;
pub mod task_body;
pub mod task_change;
pub mod task_claim;
pub mod view;
pub mod watch;
pub mod worker_subscription;
