//! The verbs of the store, a file a noun.

mod apps;
mod history;
mod lanes;
mod letters;
mod receipts;
mod requests;
mod sources;
mod subscribers;
mod upkeep;
mod watches;
