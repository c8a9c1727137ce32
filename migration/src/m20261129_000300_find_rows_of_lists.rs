//! Lists whose filter means few rows find them through an index: blocked branches, types of ledger entries,
//! and actions and targets of the audit log.

const UP: &[&str] = &[
    "create index cursor_blocked on cursor(watch_id) where state = 'blocked'",
    "create index entry_type on entry(type, at, app_id, number)",
    // In the order of the list of all apps, so that it also replaces the index of moments.
    "create index entry_time on entry(at, app_id, number)",
    "drop index entry_at",
    "create index audit_action on audit(action, id)",
    "create index audit_target on audit(target, id)",
];
const DOWN: &[&str] = &[
    "drop index audit_target",
    "drop index audit_action",
    "create index entry_at on entry(at)",
    "drop index entry_time",
    "drop index entry_type",
    "drop index cursor_blocked",
];

step!(UP, DOWN);
