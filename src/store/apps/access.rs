//! The access data for requests to a sink, as stored: one JSON text, sealed for its row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidings_actors::{
    model::secret::Secret,
    ports::{
        AccessPatch, ClientCertificate, EndpointAccess, EndpointAuth, EndpointTls, OauthClient, StoreError,
    },
};
use tidings_entity::id::AppId;
use tidings_secrets::SealedField;

use crate::{Context, database::error::undecodable};

/// The sealed value. The names are those of the API.
#[derive(Serialize, Deserialize)]
struct Kept {
    headers: BTreeMap<String, Text>,
    auth: Option<KeptAuth>,
    tls: Option<KeptTls>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptAuth {
    Basic {
        username: String,
        password: Text,
    },
    Bearer {
        token: Text,
    },
    Oauth2 {
        token_url: String,
        client_id: String,
        client_secret: Text,
        scope: Option<String>,
        audience: Option<String>,
    },
}

#[derive(Serialize, Deserialize)]
struct KeptTls {
    client: Option<KeptCertificate>,
    ca: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct KeptCertificate {
    chain: String,
    key: Text,
}

/// A secret as a part of the sealed text; no other type here may be serialized.
struct Text(Secret);

impl Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

/// The sealed form; nothing where there is nothing.
pub(crate) fn seal(
    context: &Context,
    place: &SealedField<'_>,
    access: &EndpointAccess,
) -> Result<Option<Vec<u8>>, StoreError> {
    if access.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(&kept(access)).map_err(|error| undecodable(place.table, error))?;
    Ok(Some(context.keyring.seal(place, &Secret::new(text), &*context.random)))
}

/// Opens the sealed access of a sink; where nothing is sealed, requests carry nothing of it.
pub(crate) fn open(
    context: &Context,
    place: &SealedField<'_>,
    sealed: Option<&[u8]>,
) -> Result<EndpointAccess, StoreError> {
    let Some(sealed) = sealed else { return Ok(EndpointAccess::default()) };
    let text = context.keyring.open_sealed(place, sealed);
    let text = text.map_err(|error| undecodable(place.table, error))?;
    // The text of a serde error may repeat the input.
    let kept: Kept = serde_json::from_str(text.expose()).map_err(|_| {
        undecodable(place.table, "what was sealed is not what an endpoint's access looks like")
    })?;
    Ok(access(kept))
}

/// The access data with a change applied.
pub(crate) fn changed(now: &EndpointAccess, patch: &AccessPatch) -> Result<EndpointAccess, StoreError> {
    now.changed(patch).map_err(|fault| StoreError::Conflict(fault.to_string()))
}

/// The place of the sealed access of an app's own sink.
pub(crate) fn of_app(app: &AppId) -> SealedField<'_> {
    SealedField { table: "app", column: "endpoint_access", row: app.as_str() }
}

fn kept(access: &EndpointAccess) -> Kept {
    let text = |secret: &Secret| Text(secret.clone());
    let auth = |auth: &EndpointAuth| match auth {
        EndpointAuth::Basic { username, password } => {
            KeptAuth::Basic { username: username.clone(), password: text(password) }
        }
        EndpointAuth::Bearer { token } => KeptAuth::Bearer { token: text(token) },
        EndpointAuth::Oauth2(client) => KeptAuth::Oauth2 {
            token_url: client.token_url.clone(),
            client_id: client.client_id.clone(),
            client_secret: text(&client.client_secret),
            scope: client.scope.clone(),
            audience: client.audience.clone(),
        },
    };
    let certificate =
        |client: &ClientCertificate| KeptCertificate { chain: client.chain.clone(), key: text(&client.key) };
    let tls =
        |tls: &EndpointTls| KeptTls { client: tls.client.as_ref().map(certificate), ca: tls.ca.clone() };
    Kept {
        headers: access.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        auth: access.auth.as_ref().map(auth),
        tls: access.tls.as_ref().map(tls),
    }
}

fn access(kept: Kept) -> EndpointAccess {
    let auth = |auth| match auth {
        KeptAuth::Basic { username, password } => EndpointAuth::Basic { username, password: password.0 },
        KeptAuth::Bearer { token } => EndpointAuth::Bearer { token: token.0 },
        KeptAuth::Oauth2 { token_url, client_id, client_secret, scope, audience } => {
            let client_secret = client_secret.0;
            EndpointAuth::Oauth2(OauthClient { token_url, client_id, client_secret, scope, audience })
        }
    };
    let certificate = |client: KeptCertificate| ClientCertificate { chain: client.chain, key: client.key.0 };
    EndpointAccess {
        headers: kept.headers.into_iter().map(|(name, value)| (name, value.0)).collect(),
        auth: kept.auth.map(auth),
        tls: kept.tls.map(|tls| EndpointTls { client: tls.client.map(certificate), ca: tls.ca }),
    }
}
