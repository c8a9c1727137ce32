//! Adds sessions of people who signed in at an issuer, and sign-ins that are under way there.
//!
//! Such a session has no token. A replica of the previous version reads it as a session of the server's own
//! token, finds another hash, and refuses it.

// A step back loses only these rows, and a later sign-in creates them again.
const UP: &[&str] = &[
    "alter table session add column subject text",
    "alter table session add column issuer text",
    "alter table session add column roles text",
    "create index session_subject on session(subject) where subject is not null",
    "create table sign_in (state text primary key, issuer text not null, expires_at bigint not null)",
    "create index sign_in_end on sign_in(expires_at)",
];
const DOWN: &[&str] = &[
    "drop table sign_in",
    "drop index session_subject",
    "delete from session where subject is not null",
    "alter table session drop column roles",
    "alter table session drop column issuer",
    "alter table session drop column subject",
];

step!(UP, DOWN);
