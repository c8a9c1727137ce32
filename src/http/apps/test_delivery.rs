//! Test deliveries: one signed request to an app's endpoint, with its outcome in the answer. Each app may
//! send a few a minute, because the app may name any address in the request.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use http::StatusCode;
use parking_lot::Mutex;
use serde::Serialize;
use tidings_actors::{
    handle::{TestRefused, Tested},
    model::sink::SinkAddress,
    ports::{Action, App, AttemptOutcome, SendFailure, SubscriptionMessage},
};
use tidings_entity::id::AppId;
use tokio::time::Instant;
use url::Url;
use utoipa::ToSchema;

use super::super::front::Front;
use super::receiver::read_base_url;
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        problem::{Kind, Problem},
    },
    door::{
        request::{Request, json},
        route::Answer,
    },
};
use crate::sinks::nats::target::Target;

/// Test deliveries that an app has in [`PERIOD`].
const TESTS_MAX: usize = 6;
/// The span in which an app may have [`TESTS_MAX`] test deliveries.
const PERIOD: Duration = Duration::from_mins(1);
/// Seconds after which a client should repeat a test delivery that found no free slot.
const BUSY_RETRY_AFTER_SECONDS: u64 = 5;

/// The moments of recent test deliveries. Holds only apps that sent one within the last period.
#[derive(Debug, Default)]
pub struct Tests(Mutex<HashMap<AppId, VecDeque<Instant>>>);

impl Tests {
    /// Counts one test delivery of an app.
    ///
    /// # Errors
    /// The wait until the next one is allowed.
    fn take(&self, app: &AppId, now: Instant) -> Result<(), Duration> {
        let mut of_app = self.0.lock();
        of_app.retain(|_, sent| {
            sent.retain(|at| now.duration_since(*at) < PERIOD);
            !sent.is_empty()
        });
        let sent = of_app.entry(app.clone()).or_default();
        match sent.front() {
            Some(first) if sent.len() >= TESTS_MAX => Err(PERIOD - now.duration_since(*first)),
            _ => {
                sent.push_back(now);
                Ok(())
            }
        }
    }

    /// Counts one test delivery of the app now.
    ///
    /// # Errors
    /// 429 that says how long to wait.
    fn take_or_refuse(&self, app: &AppId) -> Result<(), Problem> {
        self.take(app, Instant::now()).map_err(|wait| {
            Problem::new(Kind::TOO_MANY)
                .with_detail(format!("an app has {TESTS_MAX} test deliveries a minute"))
                .retry_after(wait.as_secs() + 1)
        })
    }
}

body! {
    /// Address of a test delivery.
    pub(super) struct TestRequest {
        /// Address to test instead of the app's `base_url`. Nothing is stored. If scheme, host or port differ
        /// from those of the app, none of its header fields, credentials and certificates are sent.
        base_url: Option<String>,
    }
}

/// Result of a test delivery: `POST {base_url}/test` with the headers and signatures of every delivery, and
/// no repository. A receiver without a route for `/test` may answer 404: then the address, TLS and each check
/// before its routes were still tested.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct TestOutcome {
    /// Whether the answer was 2xx, which acknowledges a delivery.
    pub(in crate::http) accepted: bool,
    /// Status code of the answer. Null: no answer. For mail: 250 (accepted), 422 (refused for good) or 503
    /// (not accepted now).
    status: Option<u16>,
    /// Why there was no answer: `timeout`, `connection` (name resolution, connection, TLS or access token),
    /// `refused` (by this server's egress rules) or `invalid_url`.
    failure: Option<&'static str>,
    /// Beginning of the answer, or the failure in words. Control characters are escaped.
    detail: String,
    /// Duration of the attempt, in milliseconds.
    duration_ms: u64,
    /// Address of the request. For a stream: the subject. For mail: `mailto:` and the recipients.
    url: String,
    /// Id of the test delivery. The signature covers this id.
    webhook_id: String,
}

/// Sends one signed test delivery to the endpoint of the app: one attempt of at most 10 seconds, 6 tests per
/// minute. The test does not count for the breaker and is not in the history. A branch that is blocked
/// because the app refused everything continues once the endpoint accepts the test.
#[utoipa::path(post, path = "/api/app/test", tag = "apps", request_body = Option<TestRequest>, responses(
    (status = 200, body = TestOutcome)
))]
pub(super) async fn test(front: Arc<Front>, tests: Arc<Tests>, request: Request) -> Answer {
    let mut app = request.app()?.clone();
    let mut fields = Fields::of_optional_body::<TestRequest>(&request.body)?;
    let named = read_base_url(&front, &mut fields);
    fields.finish()?;
    let is_own = named.as_ref().is_none_or(|named| *named == app.receives_at);
    if let Some(named) = named {
        let origins = app.receives_at.base_url().zip(named.base_url());
        if !origins.is_some_and(|(own, other)| is_same_origin(own, other)) {
            // A caller who may ask for a test need not know the access data of the endpoint.
            app.access = Arc::default();
        }
        app.receives_at = named;
    }
    let outcome = attempt(&front, &tests, &app).await?;
    if outcome.accepted && is_own {
        let ended = front.store.end_refusals(&app.sink_key()).await;
        ended.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
        front.handle.refresh(&app.id).await;
    }
    Ok(json(StatusCode::OK, &outcome))
}

/// Sends one signed test delivery to the sink of this repository or, if it has none of its own, to the
/// endpoint of the app. The test counts among the app's 6 per minute. A branch that is blocked because this
/// sink refused everything continues once the sink accepts the test.
#[utoipa::path(post, path = "/api/repositories/{id}/test", tag = "repositories",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = TestOutcome),
        (status = 409, description = "Nothing is sent to this sink: consumers pull its changes.")
    ))]
pub(super) async fn test_sink(front: Arc<Front>, tests: Arc<Tests>, request: Request) -> Answer {
    let failed = |error| Problem::of_store(error, Kind::NOT_REGISTERED);
    let (app, id) = (request.app()?, request.id(Kind::NOT_REGISTERED)?);
    let watch = front.store.watch(&app.id, &id).await.map_err(failed)?;
    let key = watch.sink_key();
    let served = front.store.served(&key).await.map_err(failed)?;
    let served = served.ok_or_else(|| Problem::new(Kind::NOT_REGISTERED))?;
    let outcome = attempt(&front, &tests, &served).await?;
    if outcome.accepted {
        front.store.end_refusals(&key).await.map_err(failed)?;
        front.handle.refresh(&app.id).await;
    }
    Ok(json(StatusCode::OK, &outcome))
}

/// Whether both have the same scheme, host and port.
pub(super) fn is_same_origin(one: &str, other: &str) -> bool {
    // Addresses of streams have no origin by RFC 6454; their scheme, host and port are compared instead.
    let origin = |text: &str| {
        let url = Url::parse(text).ok()?;
        Some((url.scheme().to_owned(), url.host_str()?.to_ascii_lowercase(), url.port_or_known_default()))
    };
    origin(one).is_some_and(|one| origin(other) == Some(one))
}

/// Sends a test delivery with the new settings of an app.
///
/// # Errors
/// 422 with the outcome where the answer is not 2xx, and the errors of [`test`].
pub(super) async fn must_pass(front: &Front, tests: &Tests, app: &App) -> Result<(), Problem> {
    let outcome = attempt(front, tests, app).await?;
    if outcome.accepted {
        return Ok(());
    }
    let shown = serde_json::to_value(&outcome).unwrap_or_default();
    Err(Problem::new(Kind::TEST_FAILED).with_detail("nothing was changed").with_outcome(shown))
}

async fn attempt(front: &Front, tests: &Tests, app: &App) -> Result<TestOutcome, Problem> {
    let url = address_of_test(&app.receives_at).ok_or_else(|| refused(TestRefused::NoEndpoint))?;
    tests.take_or_refuse(&app.id)?;
    let tested = front.handle.test(app).await.map_err(refused)?;
    Ok(TestOutcome::of(tested, url))
}

/// Sends one message to the sink of a subscription now; `app` is the app as served at that sink.
///
/// # Errors
/// 409 for a sink that nothing is sent to, 429 for a test beyond the six a minute (`counts`), 503 while too
/// many attempts are in flight.
pub(in crate::http) async fn send_once(
    front: &Front,
    counts: Option<&Tests>,
    app: &App,
    message: SubscriptionMessage,
) -> Result<(TestOutcome, AttemptOutcome), Problem> {
    if let Some(tests) = counts {
        tests.take_or_refuse(&app.id)?;
    }
    let url = match &app.receives_at {
        SinkAddress::Stream(address) => Target::parse(address)
            .map_or_else(|_| address.clone(), |target| target.subject(None, Action::Entry.as_str())),
        address => address.base_url().unwrap_or_default().to_owned(),
    };
    let tested = front.handle.send_once(app, message).await.map_err(refused)?;
    let outcome = tested.outcome.clone();
    Ok((TestOutcome::of(tested, url), outcome))
}

fn refused(refused: TestRefused) -> Problem {
    match refused {
        TestRefused::NoEndpoint => Problem::new(Kind::CONFLICT)
            .with_detail("the app has no endpoint: set base_url, or name an address to try"),
        TestRefused::Busy => Problem::new(Kind::UNAVAILABLE)
            .with_detail("no place for a request to this app became free in time")
            .retry_after(BUSY_RETRY_AFTER_SECONDS),
    }
}

impl TestOutcome {
    fn of(Tested { id, outcome }: Tested, url: String) -> Self {
        Self {
            accepted: outcome.is_success(),
            status: outcome.result.ok(),
            failure: outcome.result.err().map(|failure| match failure {
                SendFailure::Timeout => "timeout",
                SendFailure::Connection | SendFailure::Cut => "connection",
                SendFailure::Refused => "refused",
                SendFailure::InvalidUrl => "invalid_url",
            }),
            detail: outcome.excerpt,
            duration_ms: u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX),
            url,
            webhook_id: id.as_str().to_owned(),
        }
    }
}

/// The address of a test delivery; `None`: nothing is sent to the sink.
fn address_of_test(receives_at: &SinkAddress) -> Option<String> {
    match receives_at {
        SinkAddress::Endpoint(base_url) => Some(format!("{base_url}/test")),
        SinkAddress::Stream(address) => Some(
            Target::parse(address).map_or_else(|_| address.clone(), |target| target.subject(None, "test")),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ulid::Ulid;

    #[test]
    fn an_app_has_six_test_deliveries_in_any_minute_and_others_theirs() {
        let (tests, start) = (Tests::default(), Instant::now());
        let app = |number| AppId::new(Ulid::from_parts(1, number));
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..6 {
            assert_eq!(tests.take(&app(1), at(second)), Ok(()));
        }
        assert_eq!(tests.take(&app(1), at(10)), Err(Duration::from_secs(50)));
        assert_eq!(tests.take(&app(2), at(10)), Ok(()));
        assert_eq!(tests.take(&app(1), at(60)), Ok(()), "the first one is a minute old");
        assert_eq!(tests.take(&app(1), at(60)), Err(Duration::from_secs(1)));
        assert_eq!(tests.take(&app(3), at(200)), Ok(()));
        assert_eq!(tests.0.lock().len(), 1, "who is quiet takes no room");
    }
}
