//! A delivery that failed or was given up is found by its id.

const UP: &[&str] = &[
    "create index attempt_delivery on attempt(delivery_id)",
    "create index dead_letter_delivery on dead_letter(delivery_id)",
];

const DOWN: &[&str] = &["drop index attempt_delivery", "drop index dead_letter_delivery"];

step!(UP, DOWN);
