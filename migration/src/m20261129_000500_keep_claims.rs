//! Past claims of a task are kept, so that people see who had the task and how each claim ended.

const UP: &[&str] = &["create table task_claim (
       task_id text not null references task(id) on delete cascade, claimed_at bigint not null,
       ended_at bigint not null, worker text not null, ended_by text not null, reason text,
       primary key (task_id, claimed_at)) {one tree}"];
const DOWN: &[&str] = &["drop table task_claim"];

step!(UP, DOWN);
