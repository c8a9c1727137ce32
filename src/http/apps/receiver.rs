//! The address where an app receives: on the web, or in a stream.

use url::Url;

use super::{
    streams,
    url_fault::{URL_CHARACTERS_MAX, UrlFault, judged},
};
use crate::{
    egress::EgressError,
    http::{fields::Fields, front::Front},
};

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
