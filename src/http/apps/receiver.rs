//! The address where an app receives: on the web, or in a stream.

use tidings_actors::model::sink::SinkAddress;
use url::Url;

use super::{
    streams,
    url_fault::{URL_CHARACTERS_MAX, UrlFault, WEB_ADDRESS, judged},
};
use crate::{
    egress::EgressError,
    http::{bodies::fields::Fields, front::Front},
};

/// The fault of a text that is no address that changes can be sent to.
const NO_ADDRESS: &str = "must be a web address (https://HOST/PATH), or nats://HOST/SUBJECT for a stream";

/// Reads the address of a receiver; null means none.
pub(super) fn read_base_url(front: &Front, fields: &mut Fields) -> Option<SinkAddress> {
    let address = SinkAddress::of(Some(fields.text("base_url", 1..=URL_CHARACTERS_MAX)?));
    if let Some(fault) = of_receiver(front, &address) {
        fault.note(fields, "base_url");
    }
    Some(address)
}

/// Reads an address that is sent messages about tasks or queues: on the web alone, asked as it is. It is
/// stored and shown in clear text.
pub(in crate::http) fn read_web_address(front: &Front, fields: &mut Fields, name: &str) -> Option<String> {
    let text = fields.text(name, 1..=URL_CHARACTERS_MAX)?;
    let address = SinkAddress::of(Some(text.clone()));
    let url = Url::parse(&text).ok();
    let is_web = url.as_ref().is_some_and(|url| matches!(url.scheme(), "http" | "https"));
    if !is_web {
        fields.refuse(name, WEB_ADDRESS);
    } else if url.is_some_and(|url| url.query().is_some() || url.fragment().is_some()) {
        fields.refuse(
            name,
            "must not hold a query or a fragment, because addresses are stored and shown in clear text",
        );
    } else if let Some(fault) = of_receiver(front, &address) {
        fault.note(fields, name);
    }
    Some(text)
}

fn of_receiver(front: &Front, address: &SinkAddress) -> Option<UrlFault> {
    let text = match address {
        SinkAddress::Stream(address) => return streams::fault(front, address),
        SinkAddress::Endpoint(address) => address,
        _ => return Some(NO_ADDRESS.into()),
    };
    let Ok(url) = Url::parse(text) else { return Some(NO_ADDRESS.into()) };
    let plain = url.scheme() == "http";
    if plain && !front.settings.egress.allow_http {
        return Some(UrlFault::of_egress(&EgressError::PlainHttp, ""));
    }
    if url.host().is_none() || !(plain || url.scheme() == "https") {
        return Some(NO_ADDRESS.into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not hold a user or a password".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Some("must not hold a query or a fragment, because a path is appended to it".into());
    }
    judged(front, &url)
}
