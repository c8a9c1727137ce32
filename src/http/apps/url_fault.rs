//! The fault of an address that an app names. Each request judges the resolved address again; this check
//! gives early and clear answers.

use http::Method;
use url::Url;

use crate::{
    egress::{EgressError, refused::Refused},
    http::{bodies::fields::Fields, front::Front},
};

/// Most characters of a web address.
pub(super) const URL_CHARACTERS_MAX: usize = 2048;
/// The fault of a text that is no web address.
pub(super) const WEB_ADDRESS: &str = "must be a web address (https://HOST/PATH)";

/// The fault of an address, as text.
pub(super) struct UrlFault {
    /// The fault and its remedy.
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
    /// An address that the egress rules refuse, under Docora's text for it; `unusable` is the text for an
    /// address that no rule refuses but no request can go to.
    pub(super) fn of_egress(error: &EgressError, unusable: &str) -> Self {
        let docora = match error {
            EgressError::Refused(Refused::Port(_) | Refused::OtherPort { .. } | Refused::Own(_)) => None,
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

/// Checks the address of a token server. A secret is sent there, so plain http is refused even if settings
/// allow it, except to this machine.
pub(super) fn of_token_server(front: &Front, text: &str) -> Option<UrlFault> {
    let Ok(url) = Url::parse(text) else { return Some(WEB_ADDRESS.into()) };
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Some("must not hold a user, a password or a fragment".into());
    }
    if !front.egress.may_carry_secrets(&url) {
        let detail = "must use https, because a secret is sent there".to_owned();
        return Some(UrlFault { detail, docora: Some("URL must use HTTPS") });
    }
    judged(front, &url)
}

/// Whether the egress rules let a request go to an address.
pub(super) fn judged(front: &Front, url: &Url) -> Option<UrlFault> {
    let request = front.egress.request(Method::POST, url);
    request.err().map(|error| UrlFault::of_egress(&error, "must be a web address that can be reached"))
}
