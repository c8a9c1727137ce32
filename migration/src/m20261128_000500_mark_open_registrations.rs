//! Apps that anyone could register are told apart from those that the staff registered, and blocked
//! subscriptions are counted without looking at the others.
//!
//! Of apps that are there already nobody knows who registered them: they keep what they have.

const UP: &[&str] = &[
    "alter table app add column is_from_anyone boolean not null default false",
    "create index subscription_blocked on subscription(state) where state = 'blocked'",
];
const DOWN: &[&str] = &["drop index subscription_blocked", "alter table app drop column is_from_anyone"];

step!(UP, DOWN);
