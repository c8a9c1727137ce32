//! Tokens get a table of their own: an app may have several at once, and so may the staff. The token that an
//! app was registered with becomes a row of it. The public part in `app` stays, because SQLite cannot remove
//! a unique column from a table that others reference.

const UP: &[&str] = &[
    "create table access_token (
        id text primary key, app_id text references app(id) on delete cascade, role text,
        name text not null, public_id text not null unique, hash text not null, expires_at bigint,
        last_used_at bigint, revoked_at bigint, created_at bigint not null,
        check ((app_id is null) = (role is not null)))",
    "create index access_token_app on access_token(app_id, id)",
    // The id reuses moment and randomness of the app's id, so that the step needs neither.
    "insert into access_token (id, app_id, name, public_id, hash, created_at)
     select 'tok_' || substr(id, 5), id, 'onboarding', token_public_id, token_hash, created_at from app",
    "alter table app drop column token_hash",
];

const DOWN: &[&str] = &[
    "alter table app add column token_hash text not null default
     '0000000000000000000000000000000000000000000000000000000000000000'",
    "update app set token_hash = (select t.hash from access_token t where t.public_id = app.token_public_id)
     where exists (select 1 from access_token t where t.public_id = app.token_public_id
                   and t.revoked_at is null)",
    "drop table access_token",
];

step!(UP, DOWN);
