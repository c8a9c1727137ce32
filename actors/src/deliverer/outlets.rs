//! The ways by which changes leave: attempts to an endpoint, claims of a consumer, and tasks of a queue.

pub(super) mod attempts;
pub(super) mod handed;
pub(super) mod handing;
pub mod pulling;

use std::sync::Arc;

use crate::{
    model::sink::Outlet,
    ports::{App, Endpoint},
};

/// How changes leave for the sink of this deliverer.
pub(super) enum CurrentOutlet {
    /// Changes are sent to this endpoint.
    Attempt(Arc<Endpoint>),
    /// Consumers claim the changes: nothing is sent.
    Claim,
    /// The changes become tasks.
    HandOver,
    /// Changes do not leave: the sink is disabled, or its rows are not read yet.
    Closed,
}

impl CurrentOutlet {
    /// The way of an app that is served at this endpoint; `None`: its sink has no endpoint.
    pub(super) fn of(app: &App, endpoint: Option<Endpoint>) -> Self {
        match (app.receives_at.outlet(), endpoint) {
            _ if app.disabled.is_some() => Self::Closed,
            (Outlet::Claim, _) => Self::Claim,
            (Outlet::HandOver, _) => Self::HandOver,
            (Outlet::Attempt, Some(endpoint)) => Self::Attempt(Arc::new(endpoint)),
            (Outlet::Attempt, None) => Self::Closed,
        }
    }

    /// Whether the app is served at all.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Closed)
    }
}
