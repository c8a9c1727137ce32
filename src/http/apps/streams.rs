//! The special rules for an app whose changes go to a NATS stream.

use super::url_fault::UrlFault;
use tidings_actors::{
    model::sink::SinkAddress,
    ports::{DeliverySettings, EndpointAccess, EndpointAuth},
};
use tidings_entity::kind::{PayloadFormat, SinkKind};

use crate::{
    egress::EgressError,
    http::{bodies::fields::Fields, front::Front},
    sinks::nats::target::Target,
};

/// The fault of a stream's address, as far as it shows before the name is resolved.
pub(super) fn fault(front: &Front, address: &str) -> Option<UrlFault> {
    let target = match Target::parse(address) {
        Ok(target) => target,
        Err(fault) => return Some(fault.into()),
    };
    match front.egress.judged(&target.host, target.port, !target.needs_tls) {
        Ok(_) => None,
        Err(EgressError::PlainHttp) => Some(
            "must begin with tls://: a connection in clear text is refused, because egress.allow_http is not \
             set (set it to true to allow it)"
                .into(),
        ),
        Err(EgressError::Settings(why)) => {
            let named = format!("{}:{}", target.host, target.port);
            Some(UrlFault { detail: why.replace("this server", &named), docora: None })
        }
        Err(error) => {
            Some(UrlFault::of_egress(&error, "must be the address of a NATS server that can be reached"))
        }
    }
}

/// The settings that the named ones are applied to. Streams have the format CloudEvents; an app that leaves a
/// stream gets the defaults again, so that a change to a stream and back changes nothing.
pub(super) fn beginning(
    received_at: Option<&SinkAddress>,
    receives_at: &SinkAddress,
    now: &DeliverySettings,
) -> DeliverySettings {
    let mut now = now.clone();
    let is_stream = |address: &SinkAddress| address.kind() == SinkKind::Stream;
    match (received_at.is_some_and(is_stream), is_stream(receives_at)) {
        (_, true) => now.format = PayloadFormat::Cloudevents,
        (true, false) => now.format = DeliverySettings::default().format,
        (false, false) => {}
    }
    now
}

/// Refuses settings that a stream does not support.
pub(super) fn check(fields: &mut Fields, delivery: &DeliverySettings, access: &EndpointAccess) {
    if delivery.format != PayloadFormat::Cloudevents {
        fields.refuse("delivery/format", "must be cloudevents, which streams carry");
    }
    if !access.headers.is_empty() {
        let fault = "cannot go to a stream, which would keep them with each message: take them away (null)";
        fields.refuse("delivery/headers", fault);
    }
    if matches!(access.auth, Some(EndpointAuth::Oauth2(_))) {
        fields.refuse(
            "endpoint_auth",
            "must be basic (user and password) or bearer (a token): NATS knows no OAuth 2.0",
        );
    }
}
