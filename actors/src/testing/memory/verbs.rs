//! The verbs of the store, a file a noun.

mod apps;
mod history;
mod lanes;
mod letters;
mod receipts;
mod sources;
mod statuses;
mod subscribers;
mod tasks;
mod upkeep;
mod watches;
