//! Apps: registering an app, reading and changing it, and erasing it.

mod access;
mod delivery;
pub(super) mod endpoint;
mod mail_sink;
pub mod onboardings;
pub(in crate::http) mod receiver;
mod streams;
mod tasks_sink;
pub mod test_delivery;
mod url_fault;
pub mod watch_sink;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Serialize;
use tidings_actors::{
    model::secret::Secret,
    model::sink::{Outlet, SinkAddress},
    ports::{AccessPatch, App, AppPatch, DeliverySettings, EndpointAccess, NewApp, Rotation},
};
use tidings_entity::{
    id::{AppId, RepositoryId, WatchId},
    kind::SinkKind,
};
use url::Url;
use utoipa::ToSchema;
use warp::reply::Response;

use self::{
    access::{AccessShown, EndpointAuthRequest, EndpointTlsRequest},
    delivery::{DeliverySettingsRequest, DeliverySettingsShown, read_delivery},
    endpoint::EndpointShown,
    onboardings::Onboardings,
    receiver::read_base_url,
    test_delivery::Tests,
    url_fault::URL_CHARACTERS_MAX,
};
use super::front::Front;
use crate::http::{
    bodies::{
        body::body,
        fields::Fields,
        moment::iso,
        problem::{Kind, Problem},
    },
    door::{
        idempotency,
        request::{Caller, Request, json},
        route::{Access, Answer, Permission, Route, route, route_with},
    },
    tasks::artifacts::{drop_objects, objects_of},
};
use crate::secrets::{KEY_CHARACTERS, TOKEN_PREFIX, Token, generate_signing_key, shown_signing_secret};
use crate::store::audit;

/// How long older signing keys sign beside a new one, unless the request says otherwise: a day.
pub(super) const OVERLAP_SECONDS: u64 = 86_400;
/// The longest overlap: thirty days.
pub(super) const OVERLAP_SECONDS_MAX: u64 = 30 * 86_400;
/// Other apps of the same name that a registration names.
const NAMESAKES_SHOWN: u64 = 5;
/// Watches read at once while an app is erased.
const WATCHES_AT_ONCE: u64 = 500;

/// The routes of this file.
pub fn routes(onboardings: &Arc<Onboardings>, tests: &Arc<Tests>) -> Vec<Route> {
    vec![
        route_with::<__path_onboard, _, _, _>(Access::Onboarding, onboardings, onboard),
        route::<__path_show, _, _>(Access::App(Permission::AppsRead), show),
        route_with::<__path_patch, _, _, _>(Access::App(Permission::AppsUpdate), tests, patch),
        route::<__path_erase_self, _, _>(Access::App(Permission::AppsErase), erase_self),
        route_with::<test_delivery::__path_test, _, _, _>(
            Access::App(Permission::AppsTest),
            tests,
            test_delivery::test,
        ),
        route_with::<test_delivery::__path_test_sink, _, _, _>(
            Access::App(Permission::WatchesTest),
            tests,
            test_delivery::test_sink,
        ),
    ]
}

body! {
    /// An app to register.
    struct Onboarding {
        /// Name of the app, for people.
        #[schema(min_length = 3, max_length = 100)]
        app_name: String,
        /// Email address of a person to contact about the app.
        #[schema(min_length = 3, max_length = 255)]
        email: String,
        /// Address of the endpoint, to which `/create`, `/update` and `/delete` are appended. Or a subject of
        /// NATS JetStream, `nats://host[:4222]/subject.prefix` (`tls://`: the connection must be encrypted):
        /// then each change is a message with the subject `{prefix}.{repository_id}.create`, `.update` or
        /// `.delete`. Missing: the app pulls its changes.
        #[schema(min_length = 1, max_length = 2048)]
        base_url: Option<String>,
        /// Address of a web page about the app.
        #[schema(min_length = 1, max_length = 2048)]
        website: Option<String>,
        /// Purpose of the app, for people.
        #[schema(max_length = 500)]
        description: Option<String>,
        /// The key that signs deliveries. Missing: the server makes a new key.
        #[schema(min_length = 16, max_length = 500)]
        client_auth_key: Option<String>,
    }
    beyond docora {
        /// Delivery settings of the app.
        #[schema(value_type = Option<DeliverySettingsRequest>, nullable = false)]
        delivery: Option<DeliverySettings>,
        /// Credentials for requests to the endpoint.
        endpoint_auth: Option<EndpointAuthRequest>,
        /// TLS settings for requests to the endpoint.
        endpoint_tls: Option<EndpointTlsRequest>,
    }
}

/// The fields that were read from the request.
struct AppRequest {
    app_name: String,
    email: String,
    receives_at: SinkAddress,
    website: Option<String>,
    description: Option<String>,
    client_auth_key: Option<String>,
    delivery: Option<DeliverySettings>,
    access: AccessPatch,
}

/// Ids and secrets of a new app. The token and the signing key are never shown again.
#[derive(Serialize, ToSchema)]
struct Onboarded {
    /// Id of the app, `app_...`.
    app_id: String,
    /// Token of the app for this API.
    token: String,
    /// Signing key, in the format of Standard Webhooks.
    signing_secret: String,
    /// When the app was registered.
    created_at: String,
    /// Warning that other apps have the same name. Only the staff sees this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// A registered app, without its secrets.
#[derive(Serialize, ToSchema)]
pub struct AppShown {
    /// Id of the app, `app_...`.
    app_id: String,
    /// Name of the app, for people.
    app_name: String,
    /// Email address of a person to contact about the app.
    email: String,
    /// True: the app was registered while anyone could register apps (`onboarding.mode` was `open`), so
    /// `contact` in `mail.allow` does not allow its `email`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_from_anyone: bool,
    /// Address of the endpoint or stream. Null: the app pulls its changes.
    base_url: Option<String>,
    /// Address of a web page about the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    website: Option<String>,
    /// Purpose of the app, in the words of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// Delivery settings of the app.
    #[schema(value_type = DeliverySettingsShown)]
    delivery: DeliverySettings,
    #[serde(flatten)]
    access: AccessShown,
    /// Why nothing is delivered to the app. Null: the app is served.
    disabled: Option<String>,
    /// State of the endpoint. Missing in lists, and for an app that pulls.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<EndpointShown>,
    /// Number of signing keys in use. More than one during a rotation.
    signing_keys: usize,
    /// The signing key that this request made, in the format of Standard Webhooks. Never shown again.
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_secret: Option<String>,
    /// When the app was registered.
    created_at: String,
}

/// Why a change cannot have the fields that describe an app.
const OF_REGISTRATION: &str = "it was given when the app was registered";
/// The fields of a registration that a change cannot have, each with the reason.
const FIXED: [(&str, &str); 4] = [
    ("app_name", OF_REGISTRATION),
    ("email", OF_REGISTRATION),
    ("website", OF_REGISTRATION),
    ("description", OF_REGISTRATION),
];

body! {
    /// Changes to an app. A field that is missing keeps its value.
    struct AppChange {
        /// Address of the endpoint or stream: http, https, nats or tls URL. Null: the app has no endpoint and
        /// pulls its changes. An address with another scheme, host or port is refused while the app has
        /// header fields, credentials or a client certificate that this request neither sets nor removes
        /// (null): see `keep_endpoint_access`.
        #[schema(min_length = 1, max_length = 2048)]
        base_url: Option<String>,
        /// Whether header fields, credentials and the client certificate are also sent to the new `base_url`,
        /// whatever its host. Default false.
        keep_endpoint_access: Option<bool>,
        /// Delivery settings of the app. Settings that are missing keep their values.
        #[schema(value_type = Option<DeliverySettingsRequest>, nullable = false)]
        delivery: Option<DeliverySettings>,
        /// Credentials for requests to the endpoint. Null: no credentials.
        endpoint_auth: Option<EndpointAuthRequest>,
        /// TLS settings for requests to the endpoint. Null: no settings of the app's own.
        endpoint_tls: Option<EndpointTlsRequest>,
        /// Whether deliveries to the app are switched off.
        disabled: Option<bool>,
        /// Whether the server signs with a new key from now on.
        rotate_signing_key: Option<bool>,
        /// The new signing key. Missing: the server makes a key.
        #[schema(min_length = 16, max_length = 500)]
        client_auth_key: Option<String>,
        /// Whether a test delivery with the new settings is sent first. If the answer is not 2xx, nothing is
        /// changed (422 with the outcome). Default false.
        test_first: Option<bool>,
        /// Seconds for which older keys sign beside the new key, 0 to 2,592,000. Default 86,400.
        overlap_seconds: Option<u64>,
    }
}

impl AppShown {
    /// The app with the state of its endpoint.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn with_endpoint(front: &Front, app: &App) -> Result<Self, Problem> {
        let breakers = front.store.breakers().await;
        let breakers = breakers.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
        Ok(Self {
            endpoint: EndpointShown::of(&app.sink_key(), &app.receives_at, &breakers),
            ..Self::of(app)
        })
    }

    pub(super) fn of(app: &App) -> Self {
        Self {
            app_id: app.id.to_string(),
            app_name: app.name.clone(),
            email: app.email.clone(),
            is_from_anyone: app.is_from_anyone,
            base_url: app.receives_at.base_url().map(str::to_owned),
            website: app.website.clone(),
            description: app.description.clone(),
            delivery: DeliverySettings { format: app.format(), ..app.delivery.clone() },
            access: AccessShown::of(&app.access),
            disabled: app.disabled.clone(),
            endpoint: None,
            signing_keys: app.keys.len(),
            signing_secret: None,
            created_at: iso(app.created_at),
        }
    }
}

/// Registers an app. The answer has its token and signing key, which are shown only once.
#[utoipa::path(post, path = "/api/apps/onboard", tag = "apps", request_body = Onboarding, responses(
    (status = 201, body = Onboarded)
))]
async fn onboard(front: Arc<Front>, onboardings: Arc<Onboardings>, request: Request) -> Answer {
    let mut fields = Fields::of_body::<Onboarding>(&request.body)?;
    let wanted = read(&front, &mut fields);
    // The access data was judged with the other fields: a new app has no data that must not go to its
    // address.
    let access = EndpointAccess::default().changed(&wanted.access).unwrap_or_default();
    if wanted.receives_at.kind() == SinkKind::Stream {
        streams::check(&mut fields, &access);
    }
    fields.finish()?;
    if matches!(request.caller, Caller::Anyone) {
        onboardings.admit(request.client)?;
    }

    let now = front.clock.now();
    let token = Token::generate(TOKEN_PREFIX, front.random.as_ref());
    let signing_key =
        wanted.client_auth_key.map_or_else(|| generate_signing_key(front.random.as_ref()), Secret::new);
    let signing_secret = shown_signing_secret(&signing_key).expose().to_owned();
    let id = AppId::new(front.random.ulid(now));
    let onboarded = Onboarded {
        app_id: id.to_string(),
        token: token.text().expose().to_owned(),
        signing_secret,
        created_at: iso(now),
        warning: same_name(&front, &request, &wanted.app_name).await?,
    };
    audit::about(id.as_str(), Some(id.as_str()));
    let app = NewApp {
        id,
        name: wanted.app_name,
        email: wanted.email,
        is_from_anyone: matches!(request.caller, Caller::Anyone),
        receives_at: wanted.receives_at,
        website: wanted.website,
        description: wanted.description,
        token_public_id: token.public_id().to_owned(),
        token_hash: token.hash(),
        signing_key,
        access,
        delivery: wanted.delivery.unwrap_or_default(),
        created_at: now,
        answer: request.keyed.map(|keyed| (keyed, idempotency::stored(StatusCode::CREATED, &onboarded))),
    };
    front.store.create_app(&app).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    Ok(json(StatusCode::CREATED, &onboarded))
}

/// The warning about other apps of the same name. Only the staff gets it: other callers must not learn which
/// names exist.
async fn same_name(front: &Front, request: &Request, name: &str) -> Result<Option<String>, Problem> {
    if !matches!(request.caller, Caller::Staff(_)) {
        return Ok(None);
    }
    let known = front.administration.apps_named(name, NAMESAKES_SHOWN).await;
    let known = known.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    let ids: Vec<String> = known.iter().map(ToString::to_string).collect();
    Ok((!ids.is_empty()).then(|| {
        format!("the name {name:?} is that of {} as well: name these apps by their ids", ids.join(", "))
    }))
}

/// Shows the app that sends the request.
#[utoipa::path(get, path = "/api/app", tag = "apps", responses(
    (status = 200, body = AppShown)
))]
async fn show(front: Arc<Front>, request: Request) -> Answer {
    Ok(json(StatusCode::OK, &AppShown::with_endpoint(&front, request.app()?).await?))
}

/// Changes the settings of an app, from its next attempt on.
#[utoipa::path(patch, path = "/api/app", tag = "apps", request_body = AppChange, responses(
    (status = 200, body = AppShown)
))]
async fn patch(front: Arc<Front>, tests: Arc<Tests>, request: Request) -> Answer {
    let app = request.app()?;
    let mut fields = Fields::of_body::<AppChange>(&request.body)?;
    fields.refuse_fixed(&FIXED);
    let pulls = fields.null("base_url");
    let named = read_base_url(&front, &mut fields);
    let named = if pulls { Some(SinkAddress::Pull) } else { named };
    let receives_at = named.as_ref().unwrap_or(&app.receives_at);
    let (delivery, headers) = read_delivery(&mut fields, receives_at, &app.delivery);
    let access = access::read(&front, &mut fields, headers, &app.access, receives_at.base_url());
    refuse_to_carry_away(&mut fields, app, &access, named.as_ref().and_then(SinkAddress::base_url));
    let disabled = fields.boolean("disabled");
    let disabled = disabled.map(|disabled| disabled.then(|| format!("disabled {}", request.by_whom())));
    let (rotation, secret) = read_rotation(&front, &mut fields);
    let is_test_first = fields.boolean("test_first").unwrap_or(false);
    let patch = AppPatch { receives_at: named, delivery, disabled, rotation, access };
    let next = patch.laid_over(app, front.clock.now());
    if next.receives_at.kind() == SinkKind::Stream {
        streams::check(&mut fields, &next.access);
    }
    if is_test_first && next.receives_at.outlet() != Outlet::Attempt {
        fields.refuse("test_first", "there is no endpoint to test");
    }
    fields.finish()?;
    if is_test_first {
        test_delivery::must_pass(&front, &tests, &next).await?;
    }
    let patched = front.store.patch_app(&app.id, &patch, front.clock.now()).await;
    let patched = patched.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    front.handle.refresh(&app.id).await;
    Ok(json(StatusCode::OK, &AppShown { signing_secret: secret, ..AppShown::of(&patched) }))
}

/// A caller who may change an app need not know the access data of its endpoint: the data does not follow to
/// another origin without consent.
fn refuse_to_carry_away(fields: &mut Fields, app: &App, access: &AccessPatch, base_url: Option<&str>) {
    let is_meant = fields.boolean("keep_endpoint_access").unwrap_or(false);
    let Some(base_url) = base_url.filter(|_| !is_meant) else { return };
    let kept = app.access.kept(access);
    if kept.is_empty()
        || app.receives_at.base_url().is_some_and(|own| test_delivery::is_same_origin(own, base_url))
    {
        return;
    }
    let detail = format!(
        "is another origin, to which {} of this app would be sent: send new values, remove them (null), or \
         confirm with keep_endpoint_access",
        kept.join(" and ")
    );
    fields.refuse("base_url", detail);
}

/// Erases the app that sends the request, and everything that is stored about it.
#[utoipa::path(delete, path = "/api/app", tag = "apps", responses((status = 204)))]
async fn erase_self(front: Arc<Front>, request: Request) -> Answer {
    erase(&front, &request.app()?.id).await
}

/// Erases an app and tells the tree.
pub(super) async fn erase(front: &Front, app: &AppId) -> Answer {
    let repositories = repositories_of(front, app).await?;
    let objects = objects_of(front, app).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    front.store.erase_app(app).await.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
    front.handle.erased(app).await;
    drop_objects(front, &objects).await;
    for repository in repositories {
        front.handle.repository_changed(&repository).await;
    }
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn repositories_of(front: &Front, app: &AppId) -> Result<BTreeSet<RepositoryId>, Problem> {
    let mut repositories = BTreeSet::new();
    let mut after: Option<WatchId> = None;
    loop {
        let watches = front.store.watches(app, after.as_ref(), WATCHES_AT_ONCE).await;
        let watches = watches.map_err(|error| Problem::of_store(error, Kind::NO_APP))?;
        let Some(last) = watches.last() else { return Ok(repositories) };
        after = Some(last.id.clone());
        repositories.extend(watches.into_iter().map(|watch| watch.repository));
    }
}

/// A request for a new key, and the secret to show if the key is generated here.
fn read_rotation(front: &Front, fields: &mut Fields) -> (Option<Rotation>, Option<String>) {
    let rotate = fields.boolean("rotate_signing_key").unwrap_or(false);
    let given = fields.text("client_auth_key", KEY_CHARACTERS);
    let overlap = fields.number_within("overlap_seconds", 0..=OVERLAP_SECONDS_MAX);
    if !rotate && (given.is_some() || overlap.is_some()) {
        fields.refuse("rotate_signing_key", "must be true for a new key");
    }
    let seconds = overlap.unwrap_or(OVERLAP_SECONDS);
    if !rotate {
        return (None, None);
    }
    let made = given.is_none();
    let key = given.map_or_else(|| generate_signing_key(front.random.as_ref()), Secret::new);
    let secret = made.then(|| shown_signing_secret(&key).expose().to_owned());
    let overlap_until = front.clock.now().after(Duration::from_secs(seconds));
    (Some(Rotation { key, overlap_until }), secret)
}

fn read(front: &Front, fields: &mut Fields) -> AppRequest {
    let receives_at = read_base_url(front, fields).unwrap_or(SinkAddress::Pull);
    let (delivery, headers) = read_delivery(fields, &receives_at, &DeliverySettings::default());
    let nothing = EndpointAccess::default();
    let wanted = AppRequest {
        app_name: fields.required_text("app_name", 3..=100),
        email: fields.required_text("email", 3..=255),
        website: fields.text("website", 1..=URL_CHARACTERS_MAX),
        description: fields.text("description", 0..=500),
        client_auth_key: fields.text("client_auth_key", KEY_CHARACTERS),
        access: access::read(front, fields, headers, &nothing, receives_at.base_url()),
        receives_at,
        delivery,
    };
    if !wanted.email.is_empty() && !is_email(&wanted.email) {
        fields.refuse("email", "must be an email address");
    }
    let is_page = |text: &String| Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if wanted.website.as_ref().is_some_and(|text| !is_page(text)) {
        fields.refuse("website", url_fault::WEB_ADDRESS);
    }
    wanted
}

fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty()
            && !domain.is_empty()
            && !domain.contains('@')
            && !text.contains(char::is_whitespace)
    })
}
