//! How requests to an endpoint authenticate, beyond their signatures, and which servers they trust: header
//! fields, credentials, a client certificate, the app's own certificate authorities.
//!
//! All of these are stored sealed and never shown again.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::secret::Secret;

/// Header fields that an app has at most.
pub const HEADERS_MAX: usize = 16;
/// Bytes of all names and values of header fields together.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// The field that credentials take.
const AUTHORIZATION: &str = "authorization";

/// The access data of an endpoint: sent with every request.
#[derive(Clone, Debug, Default)]
pub struct EndpointAccess {
    /// Header fields, by their names in lower case.
    pub headers: BTreeMap<String, Secret>,
    /// Credentials of every request; `None`: requests carry none.
    pub auth: Option<EndpointAuth>,
    /// The TLS settings; `None`: the server's own.
    pub tls: Option<EndpointTls>,
}

/// Credentials that an endpoint asks for.
#[derive(Clone, Debug)]
pub enum EndpointAuth {
    /// A user and a password (RFC 7617).
    Basic {
        /// The user name, without a colon.
        username: String,
        /// The password of the user.
        password: Secret,
    },
    /// A token that never changes (RFC 6750).
    Bearer {
        /// The token, sent as `Authorization: Bearer`.
        token: Secret,
    },
    /// Tokens that a server gives out for client credentials (RFC 6749, 4.4).
    Oauth2(OauthClient),
}

/// A client of an OAuth 2.0 token server.
#[derive(Clone, Debug)]
pub struct OauthClient {
    /// The address of the token server.
    pub token_url: String,
    /// The `client_id` that the token server knows this client by.
    pub client_id: String,
    /// The `client_secret` that belongs to `client_id`.
    pub client_secret: Secret,
    /// The `scope` that the token is requested for, where the server requires one.
    pub scope: Option<String>,
    /// The `audience` that the token is requested for, where the server requires one.
    pub audience: Option<String>,
}

/// The TLS settings towards an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointTls {
    /// The certificate for an endpoint that asks for one.
    pub client: Option<ClientCertificate>,
    /// Certificate authorities that are trusted in addition to the public ones, in PEM.
    pub ca: Option<String>,
}

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The chain in PEM, the certificate itself first.
    pub chain: String,
    /// The key in PEM.
    pub key: Secret,
}

/// A change of the access data; `None` leaves a part as it is.
#[derive(Clone, Debug, Default)]
pub struct AccessPatch {
    /// Removes all header fields before the fields named here are set.
    pub clears_headers: bool,
    /// Header fields to set, or (`None`) to remove.
    pub headers: BTreeMap<String, Option<Secret>>,
    /// New credentials, or (`Some(None)`) none.
    pub auth: Option<Option<EndpointAuth>>,
    /// New TLS settings, or (`Some(None)`) none of its own.
    pub tls: Option<Option<EndpointTls>>,
}

/// Why a change cannot be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AccessFault {
    /// More header fields than [`HEADERS_MAX`].
    #[error("there are at most {HEADERS_MAX} header fields")]
    TooMany,
    /// More bytes than [`HEADER_BYTES_MAX`].
    #[error("names and values have at most {HEADER_BYTES_MAX} bytes together")]
    TooLarge,
    /// A header field and the credentials both set `authorization`.
    #[error("authorization is taken by endpoint_auth: give one of the two")]
    TwoAuthorizations,
}

impl EndpointAccess {
    /// Whether requests carry no access data.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.has_secrets() && self.tls.is_none()
    }

    /// Whether each request carries a header, credential or key that is secret.
    #[must_use]
    pub fn has_secrets(&self) -> bool {
        !self.headers.is_empty() || self.auth.is_some()
    }

    /// Whether requests carry the same access data.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }

    /// All parts of the access data, in a fixed order.
    fn parts(&self) -> Vec<Option<&str>> {
        let mut parts = Vec::new();
        match &self.auth {
            None => parts.push(None),
            Some(EndpointAuth::Basic { username, password }) => {
                parts.extend([Some("basic"), Some(username), Some(password.expose())]);
            }
            Some(EndpointAuth::Bearer { token }) => parts.extend([Some("bearer"), Some(token.expose())]),
            Some(EndpointAuth::Oauth2(client)) => parts.extend([
                Some("oauth2"),
                Some(client.token_url.as_str()),
                Some(client.client_id.as_str()),
                Some(client.client_secret.expose()),
                client.scope.as_deref(),
                client.audience.as_deref(),
            ]),
        }
        let client = self.tls.as_ref().and_then(|tls| tls.client.as_ref());
        parts.push(self.tls.as_ref().and_then(|tls| tls.ca.as_deref()));
        parts.push(client.map(|client| client.chain.as_str()));
        parts.push(client.map(|client| client.key.expose()));
        for (name, value) in &self.headers {
            parts.extend([Some(name.as_str()), Some(value.expose())]);
        }
        parts
    }

    /// The secret parts of the access data that would stay after `patch`, as the names of body fields: the
    /// sender of the change may not know them.
    #[must_use]
    pub fn kept(&self, patch: &AccessPatch) -> Vec<&'static str> {
        let keeps_header = |name: &String| !patch.clears_headers && !patch.headers.contains_key(name);
        let has_client = self.tls.as_ref().is_some_and(|tls| tls.client.is_some());
        [
            ("delivery.headers", self.headers.keys().any(keeps_header)),
            ("endpoint_auth", self.auth.is_some() && patch.auth.is_none()),
            ("endpoint_tls", has_client && patch.tls.is_none()),
        ]
        .into_iter()
        .filter_map(|(field, is_kept)| is_kept.then_some(field))
        .collect()
    }

    /// The access data with a change applied.
    ///
    /// # Errors
    /// [`AccessFault`] where the result is not valid.
    pub fn changed(&self, patch: &AccessPatch) -> Result<Self, AccessFault> {
        let mut next = self.clone();
        if patch.clears_headers {
            next.headers.clear();
        }
        for (name, value) in &patch.headers {
            match value {
                Some(value) => drop(next.headers.insert(name.clone(), value.clone())),
                None => drop(next.headers.remove(name)),
            }
        }
        if let Some(auth) = &patch.auth {
            next.auth.clone_from(auth);
        }
        if let Some(tls) = &patch.tls {
            next.tls.clone_from(tls);
        }
        let bytes: usize = next.headers.iter().map(|(name, value)| name.len() + value.expose().len()).sum();
        if next.headers.len() > HEADERS_MAX {
            Err(AccessFault::TooMany)
        } else if bytes > HEADER_BYTES_MAX {
            Err(AccessFault::TooLarge)
        } else if next.auth.is_some() && next.headers.contains_key(AUTHORIZATION) {
            Err(AccessFault::TwoAuthorizations)
        } else {
            Ok(next)
        }
    }
}

impl AccessPatch {
    /// Whether the patch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.clears_headers && self.headers.is_empty() && self.auth.is_none() && self.tls.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> AccessPatch {
        let headers = BTreeMap::from([(name.to_owned(), Some(Secret::new(value.to_owned())))]);
        AccessPatch { headers, ..AccessPatch::default() }
    }

    fn names(access: &EndpointAccess) -> Vec<&str> {
        access.headers.keys().map(String::as_str).collect()
    }

    #[test]
    fn what_a_change_does_not_name_stays() {
        let one = EndpointAccess::default().changed(&set("x-a", "1")).expect("changed");
        let two = one.changed(&set("x-b", "2")).expect("changed");
        assert_eq!(names(&two), ["x-a", "x-b"]);
        let bearer = EndpointAuth::Bearer { token: Secret::new("t".into()) };
        let patch = AccessPatch { auth: Some(Some(bearer)), ..AccessPatch::default() };
        let three = two.changed(&patch).expect("changed");
        let taken = AccessPatch { headers: BTreeMap::from([("x-a".into(), None)]), ..AccessPatch::default() };
        let four = three.changed(&taken).expect("changed");
        assert_eq!((names(&four), four.auth.is_some()), (vec!["x-b"], true));
        let cleared = AccessPatch { clears_headers: true, ..set("x-c", "3") };
        let five = four.changed(&cleared).expect("changed");
        assert_eq!((names(&five), five.auth.is_some()), (vec!["x-c"], true));
        let bare = AccessPatch { clears_headers: true, auth: Some(None), ..AccessPatch::default() };
        assert!(five.changed(&bare).expect("changed").is_empty());
        assert!(one.is_like(&one.clone()) && !one.is_like(&two) && !two.is_like(&three));
        assert!(!one.is_like(&EndpointAccess::default().changed(&set("x-a", "2")).expect("changed")));
    }

    #[test]
    fn what_a_change_keeps_of_what_is_secret_is_named() {
        let bearer = || Some(Some(EndpointAuth::Bearer { token: Secret::new("t".into()) }));
        let client = ClientCertificate { chain: "c".into(), key: Secret::new("k".into()) };
        let tls = |client| Some(Some(EndpointTls { client, ca: Some("a".into()) }));
        let all = AccessPatch { auth: bearer(), tls: tls(Some(client)), ..set("x-a", "1") };
        let full = EndpointAccess::default().changed(&all).expect("changed");
        let nothing = AccessPatch::default();
        assert_eq!(full.kept(&nothing), ["delivery.headers", "endpoint_auth", "endpoint_tls"]);
        assert_eq!(full.kept(&set("x-b", "2")), ["delivery.headers", "endpoint_auth", "endpoint_tls"]);
        assert_eq!(full.kept(&set("x-a", "2")), ["endpoint_auth", "endpoint_tls"]);
        let bare = AccessPatch { clears_headers: true, auth: Some(None), tls: Some(None), ..nothing.clone() };
        assert!(full.kept(&bare).is_empty() && full.kept(&all).is_empty());
        let public = AccessPatch { tls: tls(None), ..nothing.clone() };
        let public = EndpointAccess::default().changed(&public).expect("changed");
        assert!(public.kept(&nothing).is_empty(), "an authority is no secret");
    }

    #[test]
    fn what_together_cannot_be_is_refused() {
        let mut full = EndpointAccess::default();
        for number in 0..HEADERS_MAX {
            full = full.changed(&set(&format!("x-{number}"), "v")).expect("room");
        }
        assert_eq!(full.changed(&set("x-more", "v")).map(drop), Err(AccessFault::TooMany));
        assert!(full.changed(&set("x-0", "w")).is_ok(), "it takes the place of the old one");
        let large = EndpointAccess::default().changed(&set("x-a", &"v".repeat(HEADER_BYTES_MAX - 3)));
        let large = large.expect("room");
        assert_eq!(large.changed(&set("x-b", "v")).map(drop), Err(AccessFault::TooLarge));
        let header = EndpointAccess::default().changed(&set("authorization", "v")).expect("room");
        let bearer = EndpointAuth::Bearer { token: Secret::new("t".into()) };
        let both = AccessPatch { auth: Some(Some(bearer)), ..AccessPatch::default() };
        assert_eq!(header.changed(&both).map(drop), Err(AccessFault::TwoAuthorizations));
        let instead = AccessPatch { clears_headers: true, ..both };
        assert!(header.changed(&instead).is_ok());
    }
}
