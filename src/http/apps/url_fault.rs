//! What is wrong with an address that an app names. Where the address leads is judged again at each
//! request, after its name was resolved; this is for early and clear answers.

use http::Method;
use url::Url;

use super::streams;
use crate::{
    egress::{EgressError, refused::Refused},
    http::{Front, fields::Fields},
};

/// Most characters of a web address.
pub(super) const URL_CHARACTERS_MAX: usize = 2048;

/// What is wrong with an address.
pub(super) struct UrlFault {
    /// What is wrong, and what mends it.
    pub(super) detail: String,
    /// The text that Docora has for the fault.
    pub(super) docora: Option<&'static str>,
}

impl From<&str> for UrlFault {
    fn from(detail: &str) -> Self {
        Self { detail: detail.to_owned(), docora: None }
    }
}

impl UrlFault {
    /// An address that the egress rules refuse, under Docora's text for it; `unusable` says what an
    /// address must be that no rule refuses and no request can go to.
    pub(super) fn of_egress(error: &EgressError, unusable: &str) -> Self {
        let docora = match error {
            EgressError::Refused(Refused::Port(_) | Refused::Own(_)) => None,
            EgressError::Refused(_) => Some("Private IP addresses are not allowed"),
            EgressError::PlainHttp => Some("URL must use HTTPS"),
            _ => return unusable.into(),
        };
        Self { detail: error.to_string(), docora }
    }

    /// Notes it at the field that has the address.
    pub(super) fn note(self, fields: &mut Fields, name: &str) {
        fields.refuse_as(name, self.detail, self.docora);
    }
}

/// The address of a receiver, if one is there.
pub(super) fn read_base_url(front: &Front, fields: &mut Fields) -> Option<String> {
    let base_url = fields.text("base_url", 1..=URL_CHARACTERS_MAX);
    if let Some(fault) = base_url.as_deref().and_then(|url| of_receiver(front, url)) {
        fault.note(fields, "base_url");
    }
    base_url
}

fn of_receiver(front: &Front, text: &str) -> Option<UrlFault> {
    if streams::is_stream(Some(text)) {
        return streams::fault(front, text);
    }
    let Ok(url) = Url::parse(text) else { return Some("must be a web address".into()) };
    let plain = url.scheme() == "http";
    if plain && !front.settings.egress.allow_http {
        return Some(UrlFault::of_egress(&EgressError::PlainHttp, ""));
    }
    if url.host().is_none() || !(plain || url.scheme() == "https") {
        return Some("must be a web address".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not hold a user or a password".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("must not hold a query or a fragment, because a path is appended to it".into());
    }
    judged(front, &url)
}

/// What is wrong with the address of a token server. A secret goes there, so plain http is refused also
/// where settings allow it, but for this machine.
pub(super) fn of_token_server(front: &Front, text: &str) -> Option<UrlFault> {
    let Ok(url) = Url::parse(text) else { return Some("must be a web address".into()) };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Some("must not hold a user, a password or a fragment".into());
    }
    if !front.egress.may_carry_secrets(&url) {
        let detail = "must use https, because a secret is sent there".to_owned();
        return Some(UrlFault { detail, docora: Some("URL must use HTTPS") });
    }
    judged(front, &url)
}

fn judged(front: &Front, url: &Url) -> Option<UrlFault> {
    let request = front.egress.request(Method::POST, url);
    request.err().map(|error| UrlFault::of_egress(&error, "must be a web address that can be reached"))
}
