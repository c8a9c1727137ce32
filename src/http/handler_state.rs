//! What handlers keep in memory between requests. Each part belongs to one file of routes, or to the few that
//! share a bound; `http.rs` hands it to them where their routes are made. A restart loses all of it.

use std::sync::Arc;

use tidings_actors::turns::Turns;

use super::{
    apps::{onboardings::Onboardings, test_delivery::Tests},
    downloads::Downloads,
    histories::Histories,
    hooks::Bounds,
};
use crate::http::{
    door::{lifecycle::Lifecycle, places::Places},
    status::metrics::Told,
};
use crate::settings::Settings;

/// Compilations of globs at once.
const COMPILATIONS_MAX: usize = 1;

/// What handlers keep in memory between requests.
#[derive(Clone)]
pub struct HandlerState {
    /// How many apps one address registers.
    pub onboardings: Arc<Onboardings>,
    /// What test deliveries may cost.
    pub tests: Arc<Tests>,
    /// What reading histories and downloading contents may cost, and which lists were checked.
    pub histories: Arc<Histories>,
    /// Turns at compiling globs.
    pub compiling: Turns,
    /// What `/metrics` told last.
    pub told: Arc<Told>,
    /// What hooks may cost.
    pub hooks: Arc<Bounds>,
    /// What callers may keep busy of the connections.
    pub places: Arc<Places>,
    /// Whether this process is ready, and since when it runs.
    pub lifecycle: Lifecycle,
}

impl HandlerState {
    /// The bounds that the settings name, nothing taken of them yet.
    #[must_use]
    pub fn new(settings: &Settings, lifecycle: Lifecycle) -> Self {
        let downloads = Arc::new(Downloads::new(settings.server.download_memory_bytes));
        Self {
            onboardings: Arc::new(Onboardings::new(settings.onboarding.apps_per_hour)),
            tests: Arc::default(),
            histories: Arc::new(Histories::new(downloads)),
            compiling: Turns::new(COMPILATIONS_MAX),
            told: Arc::default(),
            hooks: Arc::default(),
            places: Arc::new(Places::new(settings.server.connections_max)),
            lifecycle,
        }
    }
}
