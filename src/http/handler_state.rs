//! The state that handlers keep in memory between requests. Each part belongs to one file of routes, or to
//! the few that share a limit; `http.rs` hands it to them where their routes are made. A restart loses all of
//! it.

use std::sync::Arc;

use tidings_actors::limits::turns::Turns;

use super::{
    admin::overview::Measured,
    apps::{onboardings::Onboardings, test_delivery::Tests},
    deliveries::histories::Histories,
    hooks::Bounds,
    repositories::{contents::downloads::Downloads, preview::previews::Previews},
    tokens::session::SignIns,
};
use crate::http::{
    door::{lifecycle::Lifecycle, places::Places},
    status::metrics::Told,
};
use crate::settings::Settings;

/// Compilations of globs at once.
const COMPILATIONS_MAX: usize = 1;

/// The state that handlers keep in memory between requests.
#[derive(Clone)]
pub struct HandlerState {
    /// The limit of registrations per address.
    pub onboardings: Arc<Onboardings>,
    /// The limit of sign-in attempts per address, and the failed ones.
    pub sign_ins: Arc<SignIns>,
    /// The limit of test deliveries.
    pub tests: Arc<Tests>,
    /// The limits of reading histories and downloading contents, and the lists that were checked.
    pub histories: Arc<Histories>,
    /// The limits and caches of previews of repositories.
    pub previews: Arc<Previews>,
    /// The numbers of the overview for a process without surveys.
    pub measured: Arc<Measured>,
    /// The turns at compiling globs, which takes processor time.
    pub compiling: Turns,
    /// The last answer of `/metrics`.
    pub told: Arc<Told>,
    /// The limits for hooks.
    pub hooks: Arc<Bounds>,
    /// The limits of connections per caller.
    pub places: Arc<Places>,
    /// Whether this process is ready, and since when it runs.
    pub lifecycle: Lifecycle,
}

impl HandlerState {
    /// The limits of the settings, with nothing counted yet.
    #[must_use]
    pub fn new(settings: &Settings, lifecycle: Lifecycle) -> Self {
        let downloads = Arc::new(Downloads::new(settings.server.download_memory_bytes));
        Self {
            onboardings: Arc::new(Onboardings::new(settings.onboarding.apps_per_hour)),
            sign_ins: Arc::new(SignIns::new(lifecycle.clone())),
            tests: Arc::default(),
            histories: Arc::new(Histories::new(downloads)),
            previews: Arc::default(),
            measured: Arc::default(),
            compiling: Turns::new(COMPILATIONS_MAX),
            told: Arc::default(),
            hooks: Arc::default(),
            places: Arc::new(Places::new(settings.server.connections_max)),
            lifecycle,
        }
    }
}
