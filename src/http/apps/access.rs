//! The access data for an app's endpoint in a body: header fields, credentials, TLS. And the parts of it that
//! are shown, none of which is secret. No fault repeats an input.

use std::collections::BTreeMap;

use http::HeaderName;
use serde::Serialize;
use serde_json::{Map, Value};
use tidings_actors::{
    model::secret::Secret,
    ports::{
        AccessFault, AccessPatch, ClientCertificate, EndpointAccess, EndpointAuth, EndpointTls, OauthClient,
    },
};
use url::Url;
use utoipa::ToSchema;

use super::super::front::Front;
use super::url_fault;
use crate::egress::tls::{AppTls, CertificateFacts, TlsPart};
use crate::http::bodies::{
    body::{Body, body},
    fields::Fields,
    moment::iso,
};

/// Most characters of a name or an address.
const NAME_CHARACTERS_MAX: usize = 2_048;
/// Most characters of a password or token.
const SECRET_CHARACTERS_MAX: usize = 8_192;
/// Most characters of PEM.
const PEM_CHARACTERS_MAX: usize = 65_536;
/// Header fields that are ours, or that frame the request.
const TAKEN: [&str; 18] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "user-agent",
    "traceparent",
    "expect",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "date",
];
/// Beginnings of names that are ours.
const TAKEN_PREFIXES: [&str; 2] = ["webhook-", "x-docora-"];

body! {
    /// Credentials for requests to an endpoint: exactly one of the fields. Stored sealed; passwords, tokens
    /// and secrets are never shown again.
    pub(super) struct EndpointAuthRequest {
        /// User name and password for HTTP Basic authentication.
        basic: Option<BasicRequest>,
        /// A token that is sent unchanged with each request.
        bearer: Option<BearerRequest>,
        /// A client of an OAuth 2.0 token server (client credentials grant, HTTP Basic authentication).
        /// Tokens are kept until shortly before they expire, and a new one is requested once if the endpoint
        /// answers 401.
        oauth2: Option<OauthRequest>,
    }
}

body! {
    /// User name and password for HTTP Basic authentication.
    struct BasicRequest {
        /// User name, without a colon.
        username: String,
        /// Password of the user.
        password: String,
    }
}

body! {
    /// A fixed bearer token (RFC 6750).
    struct BearerRequest {
        /// The token, sent as `Authorization: Bearer`.
        token: String,
    }
}

body! {
    /// A client of an OAuth 2.0 token server.
    struct OauthRequest {
        /// Address of the token server.
        token_url: String,
        /// The `client_id` of this client at the token server.
        client_id: String,
        /// The `client_secret` of the `client_id`.
        client_secret: String,
        /// The `scope` of the token, if the token server requires one.
        scope: Option<String>,
        /// The `audience` of the token, if the token server requires one.
        audience: Option<String>,
    }
}

body! {
    /// TLS settings for requests to the endpoint and the token server, stored sealed. New settings replace
    /// all old settings.
    pub(super) struct EndpointTlsRequest {
        /// Client certificate and its chain, in PEM, for servers that request one.
        client_certificate: Option<String>,
        /// Private key of the client certificate, in PEM: PKCS#8, SEC1 or PKCS#1, not encrypted.
        client_key: Option<String>,
        /// Certificate authorities that are trusted in addition to the public ones, in PEM.
        ca: Option<String>,
    }
}

/// Credentials and TLS settings of the endpoint, without secrets.
#[derive(Serialize, ToSchema)]
pub(super) struct AccessShown {
    /// Names of the header fields that are sent with each request (`delivery.headers`).
    endpoint_headers: Vec<String>,
    /// Credentials for requests to the endpoint, without secrets.
    #[schema(value_type = Option<Object>)]
    endpoint_auth: Option<Value>,
    /// Certificates of the app's TLS settings. Null: the app has none.
    endpoint_tls: Option<TlsShown>,
}

/// Certificates of TLS settings.
#[derive(Serialize, ToSchema)]
struct TlsShown {
    /// Client certificate for requests to the endpoint. Null: none.
    client_certificate: Option<CertificateShown>,
    /// Certificate authorities that are trusted in addition to the public ones.
    ca: Vec<CertificateShown>,
}

/// A certificate of TLS settings, without its private key.
#[derive(Serialize, ToSchema)]
struct CertificateShown {
    /// Subject of the certificate, as text.
    subject: String,
    /// SHA-256 of the certificate in DER form.
    sha256: String,
    /// When the certificate expires, as a timestamp.
    not_after: String,
}

impl From<CertificateFacts> for CertificateShown {
    fn from(facts: CertificateFacts) -> Self {
        let CertificateFacts { subject, sha256, not_after } = facts;
        Self { subject, sha256, not_after: iso(not_after) }
    }
}

impl AccessShown {
    pub(super) fn of(access: &EndpointAccess) -> Self {
        let auth = access.auth.as_ref().map(|auth| match auth {
            EndpointAuth::Basic { username, .. } => serde_json::json!({ "basic": { "username": username } }),
            EndpointAuth::Bearer { .. } => serde_json::json!({ "bearer": {} }),
            EndpointAuth::Oauth2(client) => serde_json::json!({ "oauth2": {
                "token_url": client.token_url, "client_id": client.client_id,
                "scope": client.scope, "audience": client.audience,
            } }),
        });
        let tls = access.tls.as_ref().map(|tls| {
            // The setup was parsed when it was set; of a damaged row nothing is shown.
            let (own, ca) = AppTls::read(tls).map(|read| read.facts()).unwrap_or_default();
            let ca = ca.into_iter().map(CertificateShown::from).collect();
            TlsShown { client_certificate: own.map(CertificateShown::from), ca }
        });
        Self {
            endpoint_headers: access.headers.keys().cloned().collect(),
            endpoint_auth: auth,
            endpoint_tls: tls,
        }
    }
}

/// Reads `endpoint_auth` and `endpoint_tls`, and judges them together with `headers` (a field of `delivery`)
/// for an app with the address `base_url`.
pub(super) fn read(
    front: &Front,
    fields: &mut Fields,
    headers: Option<Value>,
    now: &EndpointAccess,
    base_url: Option<&str>,
) -> AccessPatch {
    let mut patch = AccessPatch::default();
    if let Some(headers) = headers {
        read_headers(fields, headers, &mut patch);
    }
    patch.auth = if fields.null("endpoint_auth") { Some(None) } else { read_auth(front, fields).map(Some) };
    patch.tls = if fields.null("endpoint_tls") { Some(None) } else { read_tls(front, fields).map(Some) };
    match now.changed(&patch) {
        Err(fault @ AccessFault::TwoAuthorizations) => fields.refuse("endpoint_auth", fault.to_string()),
        Err(fault) => fields.refuse("delivery/headers", fault.to_string()),
        Ok(next) => {
            let url = base_url.and_then(|url| Url::parse(url).ok());
            let may_go = url.is_none_or(|url| front.egress.may_carry_secrets(&url));
            if next.has_secrets() && !may_go {
                fields.refuse("base_url", "must use HTTPS, because headers and credentials go with requests");
            }
        }
    }
    patch
}

fn read_headers(fields: &mut Fields, headers: Value, patch: &mut AccessPatch) {
    let headers = match headers {
        Value::Null => {
            patch.clears_headers = true;
            return;
        }
        Value::Object(headers) => headers,
        _ => return fields.refuse("delivery/headers", "must be an object of names and values"),
    };
    let mut read: BTreeMap<String, Option<Secret>> = BTreeMap::new();
    for (name, value) in headers {
        match header(&name, value) {
            Ok((name, _)) if read.contains_key(&name) => {
                fields.refuse("delivery/headers", "names a header field twice");
            }
            Ok((name, value)) => drop(read.insert(name, value)),
            Err(fault) => fields.refuse(&format!("delivery/headers/{}", pointed(&name)), fault),
        }
    }
    patch.headers = read;
}

fn header(name: &str, value: Value) -> Result<(String, Option<Secret>), &'static str> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| "is no name of a header field")?;
    let name = parsed.as_str();
    if TAKEN.contains(&name) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err("is set by this server, or belongs to the connection");
    }
    let value = match value {
        Value::Null => None,
        Value::String(value) => {
            let value = Secret::new(value);
            let text = value.expose();
            let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if text.is_empty() || text.trim() != text || !is_visible {
                return Err("must have a value of visible ASCII characters, without blanks at its ends");
            }
            Some(value)
        }
        _ => return Err("must be a text, or null to take it away"),
    };
    Ok((name.to_owned(), value))
}

/// A name as a JSON pointer has it, at most 64 characters.
fn pointed(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1").chars().take(64).collect()
}

/// An object within the body, read field by field.
struct Part<'f> {
    fields: &'f mut Fields,
    at: String,
    unread: Map<String, Value>,
    /// The field names that the schema of the object describes.
    described: &'static [&'static str],
}

impl Part<'_> {
    fn refuse(&mut self, name: &str, detail: &str) {
        self.fields.refuse(&format!("{}/{name}", self.at), detail);
    }

    /// Reads a text that meets `pass`; `rule` describes the condition.
    fn text(&mut self, name: &str, most: usize, rule: &str, passes: impl Fn(&str) -> bool) -> Option<String> {
        debug_assert!(self.described.contains(&name), "{name} is read and not described");
        match self.unread.remove(name) {
            Some(Value::String(text)) if (1..=most).contains(&text.chars().count()) && passes(&text) => {
                Some(text)
            }
            Some(_) => {
                self.refuse(name, rule);
                None
            }
            None => None,
        }
    }

    fn required(
        &mut self,
        name: &str,
        most: usize,
        rule: &str,
        passes: impl Fn(&str) -> bool,
    ) -> Option<String> {
        if !self.unread.contains_key(name) {
            self.refuse(name, "is required");
        }
        self.text(name, most, rule, passes)
    }

    fn optional(&mut self, name: &str) -> Option<String> {
        if self.unread.get(name).is_some_and(Value::is_null) {
            self.unread.remove(name);
        }
        self.text(name, NAME_CHARACTERS_MAX, "must be a text without control characters", is_line)
    }

    fn finish(mut self) {
        let unknown: Vec<String> = self.unread.keys().map(|name| pointed(name)).collect();
        unknown.iter().for_each(|name| self.refuse(name, "there is no such field"));
    }
}

fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn one_of_the_kinds() -> String {
    format!("must hold exactly one of: {}", EndpointAuthRequest::FIELDS.join(", "))
}

fn read_auth(front: &Front, fields: &mut Fields) -> Option<EndpointAuth> {
    let kinds: Map<String, Value> = fields.object("endpoint_auth")?;
    let mut kinds = kinds.into_iter();
    let (Some((kind, Value::Object(unread))), None) = (kinds.next(), kinds.next()) else {
        fields.refuse("endpoint_auth", one_of_the_kinds());
        return None;
    };
    let described = match kind.as_str() {
        "basic" => BasicRequest::FIELDS,
        "bearer" => BearerRequest::FIELDS,
        "oauth2" => OauthRequest::FIELDS,
        _ => &[],
    };
    let mut part = Part { at: format!("endpoint_auth/{kind}"), fields, unread, described };
    let secret_rule = "must be a text without control characters";
    let auth = match kind.as_str() {
        "basic" => {
            let is_user = |text: &str| is_line(text) && !text.contains(':');
            let rule = "must be a text without colons and control characters";
            let username = part.required("username", NAME_CHARACTERS_MAX, rule, is_user);
            let password = part.required("password", SECRET_CHARACTERS_MAX, secret_rule, is_line);
            username.zip(password).map(|(username, password)| {
                let password = Secret::new(password);
                EndpointAuth::Basic { username, password }
            })
        }
        "bearer" => {
            let is_token = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
            let rule = "must be visible ASCII characters without blanks";
            let token = part.required("token", SECRET_CHARACTERS_MAX, rule, is_token);
            token.map(|token| EndpointAuth::Bearer { token: Secret::new(token) })
        }
        "oauth2" => {
            let token_url = part.required("token_url", NAME_CHARACTERS_MAX, url_fault::WEB_ADDRESS, is_line);
            let fault = token_url.as_deref().and_then(|url| url_fault::of_token_server(front, url));
            if let Some(fault) = fault {
                fault.note(part.fields, "endpoint_auth/oauth2/token_url");
            }
            let client_id = part.required("client_id", NAME_CHARACTERS_MAX, secret_rule, is_line);
            let client_secret = part.required("client_secret", SECRET_CHARACTERS_MAX, secret_rule, is_line);
            let (scope, audience) = (part.optional("scope"), part.optional("audience"));
            let named = token_url.zip(client_id).zip(client_secret);
            named.map(|((token_url, client_id), client_secret)| {
                let client_secret = Secret::new(client_secret);
                EndpointAuth::Oauth2(OauthClient { token_url, client_id, client_secret, scope, audience })
            })
        }
        _ => {
            fields.refuse("endpoint_auth", one_of_the_kinds());
            return None;
        }
    };
    part.finish();
    auth
}

fn read_tls(front: &Front, fields: &mut Fields) -> Option<EndpointTls> {
    let unread: Map<String, Value> = fields.object("endpoint_tls")?;
    let described = EndpointTlsRequest::FIELDS;
    let mut part = Part { at: "endpoint_tls".to_owned(), fields, unread, described };
    part.unread.retain(|_, value| !value.is_null());
    let is_bare = part.unread.is_empty();
    let mut pem = |name: &str| part.text(name, PEM_CHARACTERS_MAX, "must be a text in PEM", |_| true);
    let (chain, key, ca) = (pem("client_certificate"), pem("client_key").map(Secret::new), pem("ca"));
    let client = match (chain, key) {
        (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
        (Some(_), None) => {
            part.refuse("client_key", "is required beside client_certificate");
            None
        }
        (None, Some(_)) => {
            part.refuse("client_certificate", "is required beside client_key");
            None
        }
        (None, None) => None,
    };
    let tls = EndpointTls { client, ca };
    if tls.client.is_none() && tls.ca.is_none() {
        part.finish();
        if is_bare {
            fields.refuse("endpoint_tls", "must hold client_certificate and client_key, ca, or all three");
        }
        return None;
    }
    let judged = AppTls::read(&tls).and_then(|read| read.check_validity(front.clock.now()));
    if let Err(fault) = judged {
        let name = match fault.part {
            TlsPart::ClientCertificate => "client_certificate",
            TlsPart::ClientKey => "client_key",
            TlsPart::Ca => "ca",
        };
        part.refuse(name, &fault.text);
    }
    part.finish();
    Some(tls)
}
