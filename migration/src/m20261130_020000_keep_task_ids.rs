//! A dead letter remembers the task that its change was, so that the redrive of the letter is the same task
//! again.

const UP: &[&str] = &["alter table dead_letter add column task_id text"];
const DOWN: &[&str] = &["alter table dead_letter drop column task_id"];

step!(UP, DOWN);
