//! The HTTP front door: the only list of routes. A handler parses, calls one verb and replies; everything
//! that all routes share happens once, in `door/pipeline.rs`. [`document`] is made from [`table`].

pub mod admin;
pub mod apps;
pub mod bodies;
pub mod dead_letters;
pub mod deliveries;
pub mod document;
pub mod door;
pub mod downloads;
pub mod front;
pub mod handler_state;
pub mod histories;
pub mod hooks;
mod ledger;
pub mod repositories;
mod standing;
pub mod status;
mod subscriptions;
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

/// Which routes are served at a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All but those of [`Served::Ops`].
    Api,
    /// Those for who runs the server: health, version, metrics.
    Ops,
    /// What other replicas hand on.
    Work,
}

impl Served {
    /// What a server of a role serves at its first door, and what beside [`Served::Ops`] where those have a
    /// door of their own.
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
                    repositories::routes(&state.histories, &state.compiling, &state.places, &state.lifecycle),
                    dead_letters::routes(),
                    deliveries::routes(&state.histories),
                    tokens::routes(),
                    ledger::routes(&state.places, &state.lifecycle),
                    subscriptions::routes(&state.tests),
                ]
                .concat();
                [
                    document::docs::routes(table),
                    hooks::routes(&state.hooks),
                    hooks::receipts::routes(),
                    admin::lag::routes(),
                    admin::audit::routes(),
                    ledger::staff_routes(),
                    admin::routes(&of_apps),
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
