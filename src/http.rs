//! The HTTP API: the only list of routes. A handler parses the request, makes one call and replies; work that
//! all routes share is done once, in `door/pipeline.rs`. [`document`] is made from [`table`].

pub mod admin;
pub mod apps;
pub mod bodies;
mod dashboard;
pub mod deliveries;
pub mod document;
pub mod door;
pub mod front;
pub mod handler_state;
pub mod hooks;
mod ledger;
pub mod repositories;
pub mod status;
mod tasks;
pub mod tokens;

use std::sync::Arc;

use tidings_entity::kind::ReplicaRole;
use warp::{filters::BoxedFilter, reply::Response};

use self::handler_state::HandlerState;
use crate::http::door::{lifecycle::Lifecycle, pipeline::Pipeline, route::Route};
use crate::settings::Settings;

/// Every route that is served.
#[must_use]
pub fn table() -> Vec<Route> {
    let state = HandlerState::new(&Settings::default(), Lifecycle::default());
    Served::of(ReplicaRole::All, false).iter().flat_map(|served| served.routes(&state)).collect()
}

/// The routes that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All but those of [`Served::Ops`].
    Api,
    /// Routes for the operator: health, version and metrics.
    Ops,
    /// Requests that other replicas forward.
    Work,
}

impl Served {
    /// The groups of routes that a server of a role serves at its first door; [`Served::Ops`] is left out if
    /// those routes have a door of their own.
    #[must_use]
    pub fn of(role: ReplicaRole, has_ops_door: bool) -> &'static [Self] {
        match (role, has_ops_door) {
            (ReplicaRole::Worker, true) => &[Self::Work],
            (ReplicaRole::Worker, false) => &[Self::Ops, Self::Work],
            (ReplicaRole::All | ReplicaRole::Api, true) => &[Self::Api],
            (ReplicaRole::All | ReplicaRole::Api, false) => &[Self::Ops, Self::Api],
        }
    }
}

impl Served {
    fn routes(self, state: &HandlerState) -> Vec<Route> {
        match self {
            Self::Ops => [status::routes(&state.lifecycle), status::metrics::routes(&state.told)].concat(),
            Self::Work => repositories::handed_on(&state.places),
            Self::Api => {
                let of_apps = [
                    apps::routes(&state.onboardings, &state.tests),
                    repositories::routes(
                        &state.histories,
                        &state.previews,
                        &state.compiling,
                        &state.places,
                        &state.lifecycle,
                    ),
                    deliveries::dead_letters::routes(),
                    deliveries::routes(&state.histories),
                    tokens::routes(),
                    ledger::routes(&state.places, &state.lifecycle),
                    ledger::subscriptions::routes(&state.tests),
                    tasks::routes(&state.places, &state.lifecycle),
                    hooks::own::routes(),
                    hooks::receipts::routes(),
                    admin::samples::of_apps(),
                ]
                .concat();
                [
                    document::docs::routes(table),
                    dashboard::routes(),
                    tokens::session::routes(&state.sign_ins),
                    hooks::routes(&state.hooks),
                    hooks::receipts::staff_routes(),
                    admin::lag::routes(),
                    admin::audit::routes(),
                    ledger::staff_routes(&state.places, &state.lifecycle),
                    deliveries::staff_routes(&state.histories),
                    tasks::staff_routes(),
                    tasks::codeq::routes(&state.lifecycle),
                    admin::routes(&of_apps, &state.measured),
                    admin::keys::routes(),
                    of_apps,
                ]
                .concat()
            }
        }
    }
}

/// Routes as one filter that never rejects.
#[must_use]
pub fn routes(pipeline: &Arc<Pipeline>, served: &[Served]) -> BoxedFilter<(Response,)> {
    pipeline.filter(served.iter().flat_map(|served| served.routes(pipeline.state())).collect())
}

#[cfg(test)]
pub(crate) mod tests;
