//! Lists whose filter means few rows find them through an index: entries of one type in the ledger of an
//! app, and watches whose app or sink is disabled.

const UP: &[&str] = &[
    "create index entry_app_type on entry(app_id, type, number)",
    "create index app_disabled on app(id) where disabled is not null",
    "create index sink_disabled on sink(id) where disabled is not null",
];
const DOWN: &[&str] = &["drop index sink_disabled", "drop index app_disabled", "drop index entry_app_type"];

step!(UP, DOWN);
