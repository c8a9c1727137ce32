//! The special rules for an app whose changes go to a NATS stream.

use super::url_fault::UrlFault;
use tidings_actors::ports::{EndpointAccess, EndpointAuth};

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

/// Refuses access data that a stream does not support.
pub(super) fn check(fields: &mut Fields, access: &EndpointAccess) {
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
