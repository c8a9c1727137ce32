//! A test delivery: one signed request to a sink of an app, so that whoever runs it sees
//! whether it takes what is sent. It goes through the transport that all deliveries go through, with
//! the app's pace and a place among all that is in flight; it feeds no breaker, is no attempt of
//! anything, and leaves no row.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::Handle;
use crate::{
    deliverer::take_turn,
    ports::{App, AttemptOutcome, Endpoint, Notice, SubscriptionMessage},
    round::DeliveryId,
};

/// Longest wait for a turn, and again for the attempt itself.
const WITHIN: Duration = Duration::from_secs(10);

/// What came of a test delivery.
#[derive(Clone, Debug)]
pub struct Tested {
    /// What it was sent as (`webhook-id`).
    pub id: DeliveryId,
    /// What came of it.
    pub outcome: AttemptOutcome,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestRefused {
    /// The app has no endpoint.
    NoEndpoint,
    /// Its pace, or all that is in flight, left no room for it in time.
    Busy,
}

impl Handle {
    /// Sends one test delivery to an app as it is given here, whatever its rows say: settings can be
    /// tried before they are written. Takes at most 20 s.
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

    /// Sends one message to the sink of a subscription now, whatever waits for it: a test, or an entry once
    /// more. `app` is the app as it is served at that sink. Takes at most 20 s.
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
