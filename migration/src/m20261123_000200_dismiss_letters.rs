//! Dead letters may be dismissed, and open letters of all apps are found without reading closed ones.

const UP: &[&str] = &["create index dead_letter_open_id on dead_letter(id)
     where status in ('open', 'redrive_requested')"];

const DOWN: &[&str] = &[
    "drop index dead_letter_open_id",
    // An older binary does not know this status; the nearest one that it knows is superseded.
    "update dead_letter set status = 'superseded' where status = 'dismissed'",
];

step!(UP, DOWN);
