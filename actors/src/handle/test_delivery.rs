//! A test delivery: one signed request to a sink of an app, to see whether the receiver accepts it. It uses
//! the transport of all deliveries, with the app's pace and a place among the attempts in flight; it does not
//! count for a breaker or as an attempt of a change, and leaves no row.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Handle;
use crate::{
    deliverer::take_turn,
    model::round::DeliveryId,
    ports::{App, AttemptOutcome, Endpoint, Notice, SubscriptionMessage},
};

/// Longest wait for a turn, and again for the attempt itself.
const WITHIN: Duration = Duration::from_secs(10);

/// The result of a test delivery.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The id that the request was sent under (`webhook-id`).
    pub id: DeliveryId,
    /// The outcome of the request.
    pub outcome: AttemptOutcome,
}

/// Why a test delivery was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestRefused {
    /// The app has no endpoint.
    NoEndpoint,
    /// The rate of the app, or its attempts in flight, left no room in time.
    Busy,
}

impl Handle {
    /// Sends one test delivery to the app as given, regardless of its rows: settings can be tried before they
    /// are saved. Takes at most 20 s.
    ///
    /// # Errors
    /// [`TestRefused`] where nothing was sent.
    pub async fn test(&self, app: &App) -> Result<Tested, TestRefused> {
        let context = &self.context;
        let limit = context.policy.attempt_timeout.min(WITHIN);
        let endpoint = Endpoint::of(app, limit, context.pace_of(app)).ok_or(TestRefused::NoEndpoint)?;
        let turn = timeout(WITHIN, take_turn(&endpoint, &context.outbound)).await;
        let _place = turn.map_err(|_| TestRefused::Busy)?;
        let mut salt = [0; 16];
        context.random.fill(&mut salt);
        let (id, timestamp) = (DeliveryId::of_test(&app.id, &salt), context.clock.now());
        let notice = Notice::Test { id: id.clone(), app: app.id.clone(), timestamp };
        let outcome = context.transport.notify(&endpoint, &notice).await;
        Ok(Tested { id, outcome })
    }

    /// Sends one message to the sink of a subscription now, before entries that wait: a test, or an entry
    /// again. `app` is the app as it is served at that sink. Takes at most 20 s.
    ///
    /// # Errors
    /// [`TestRefused`] where nothing was sent.
    pub async fn send_once(&self, app: &App, message: SubscriptionMessage) -> Result<Tested, TestRefused> {
        let context = &self.context;
        let limit = context.policy.attempt_timeout.min(WITHIN);
        let endpoint = Endpoint::of(app, limit, context.pace_of(app)).ok_or(TestRefused::NoEndpoint)?;
        let turn = timeout(WITHIN, take_turn(&endpoint, &context.outbound)).await;
        let _place = turn.map_err(|_| TestRefused::Busy)?;
        let id = message.id.clone();
        let outcome = context.transport.notify(&endpoint, &Notice::OfSubscription(Arc::new(message))).await;
        Ok(Tested { id, outcome })
    }
}
