//! Lists find their rows through an index where they mean few of many: open letters of an app or of a watch
//! among closed ones, and paused watches.

const UP: &[&str] = &[
    "create index dead_letter_app_open on dead_letter(app_id, id)
     where status in ('open', 'redrive_requested')",
    "create index dead_letter_watch_open on dead_letter(watch_id, id)
     where status in ('open', 'redrive_requested')",
    "create index watch_paused on watch(id) where state = 'paused'",
];
const DOWN: &[&str] =
    &["drop index watch_paused", "drop index dead_letter_watch_open", "drop index dead_letter_app_open"];

step!(UP, DOWN);
