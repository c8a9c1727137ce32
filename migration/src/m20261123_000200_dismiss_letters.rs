//! Dead letters may be dismissed, and the open ones are found over all apps without looking at closed ones.

const UP: &[&str] = &["create index dead_letter_open_id on dead_letter(id)
     where status in ('open', 'redrive_requested')"];

const DOWN: &[&str] = &[
    "drop index dead_letter_open_id",
    // An older binary does not know the word; to it, such a letter was made moot.
    "update dead_letter set status = 'superseded' where status = 'dismissed'",
];

step!(UP, DOWN);
