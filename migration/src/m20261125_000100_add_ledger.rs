//! Each app has a ledger: one row for each change of state, numbered in the order of commits.

const UP: &[&str] = &[
    "create table ledger (
       app_id text primary key references app(id) on delete cascade, name text not null,
       first bigint not null, last bigint not null)",
    "create table entry (
       app_id text not null references app(id) on delete cascade, number bigint not null, at bigint not null,
       type text not null, watch_id text, subject text not null, origin_kind text not null,
       origin text not null, cause bigint, data text not null, primary key (app_id, number))",
    "create index entry_at on entry(at)",
    "create index entry_subject on entry(subject, number)",
    "create table entry_fold (
       app_id text not null references app(id) on delete cascade, subject text not null,
       topic text not null, told text not null, number bigint not null, told_at bigint not null,
       last text not null, last_at bigint not null, folded bigint not null, watch_id text,
       origin_kind text not null, origin text not null, data text not null,
       primary key (app_id, subject, topic))",
    "create index entry_fold_last on entry_fold(last_at)",
];

const DOWN: &[&str] = &["drop table entry_fold", "drop table entry", "drop table ledger"];

step!(UP, DOWN);
