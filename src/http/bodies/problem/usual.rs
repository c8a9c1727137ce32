//! The explanation of problems that the request itself does not explain: what the caller can do.

use super::Kind;

/// Kinds of problems with the detail of a problem that has none of its own.
const USUAL: [(Kind, &str); 5] = [
    (
        Kind::MISSING_AUTHORIZATION,
        "the request has no token: send the header `Authorization: Bearer TOKEN` with the token of an app",
    ),
    (
        Kind::ADMIN_REQUIRED,
        "send the header `Authorization: Bearer TOKEN` with a token of the staff; if one was sent, it is \
         mistyped, revoked or expired",
    ),
    (Kind::INVALID_TOKEN, "the server does not know this token: it is mistyped, revoked or expired"),
    (Kind::NO_ROUTE, "no route has this path; GET /openapi.json lists the routes"),
    (
        Kind::METHOD_NOT_ALLOWED,
        "the route does not take this method; the header Allow lists those that it takes",
    ),
];

impl Kind {
    /// The detail of a problem of this kind that has none of its own.
    pub(super) fn usual_detail(self) -> Option<&'static str> {
        USUAL.into_iter().find(|(kind, _)| *kind == self).map(|(_, detail)| detail)
    }
}
