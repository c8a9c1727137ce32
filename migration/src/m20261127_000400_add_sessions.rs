//! Adds sessions of browsers: the cookie of a browser stands for the token until the session ends.

const UP: &[&str] = &[
    "create table session (
        hash text primary key, token_id text references access_token(id) on delete cascade,
        token_hash text not null, created_at bigint not null, expires_at bigint not null)",
    "create index session_token on session(token_id)",
    "create index session_end on session(expires_at)",
];
const DOWN: &[&str] = &["drop table session"];

step!(UP, DOWN);
