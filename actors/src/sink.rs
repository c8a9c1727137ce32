//! Sinks: where the changes of a watch go. A watch has exactly one sink.
//!
//! The lane (order, ids, letters, settlements) is the same for every sink. A lane asks one thing of its sink:
//! the [`Outlet`], which says who acts when a change leaves.
//!
//! The kind of a sink is decided once, where the row that names the sink is read ([`SinkAddress::of`]).
//! Everything else matches on [`SinkAddress`], [`SinkKind`] or [`Outlet`]; nothing looks at the spelling of
//! an address.

use tidings_entity::kind::SinkKind;

/// The stored address of the sink that prints on a terminal. The front door refuses it.
const PRINT: &str = "print:";
/// Schemes of addresses of NATS servers.
const STREAM_SCHEMES: [&str; 2] = ["nats", "tls"];

/// Who acts when a change leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// Tidings sends, and the other side answers.
    Attempt,
    /// A consumer claims changes and settles them.
    Claim,
}

impl Outlet {
    /// The outlet of a kind.
    #[must_use]
    pub fn of(kind: SinkKind) -> Self {
        match kind {
            SinkKind::Endpoint | SinkKind::Stream | SinkKind::Print => Self::Attempt,
            SinkKind::Pull => Self::Claim,
        }
    }
}

/// The kind of a sink, with the address where changes are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// Requests go to this web address; `/create`, `/update`, ... is appended to it word for word.
    Endpoint(String),
    /// Messages go to the stream at this `nats://` or `tls://` address.
    Stream(String),
    /// Nothing is sent: a consumer claims changes.
    Pull,
    /// Changes are printed on the terminal of the process.
    Print,
}

impl SinkAddress {
    /// Reads `base_url` as it is stored and sent: none means pull.
    #[must_use]
    pub fn of(base_url: Option<String>) -> Self {
        let Some(address) = base_url else { return Self::Pull };
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
        if address == PRINT {
            Self::Print
        } else if STREAM_SCHEMES.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            Self::Stream(address)
        } else {
            Self::Endpoint(address)
        }
    }

    /// The `base_url` that [`SinkAddress::of`] reads as this address.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        match self {
            Self::Endpoint(address) | Self::Stream(address) => Some(address),
            Self::Pull => None,
            Self::Print => Some(PRINT),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> SinkKind {
        match self {
            Self::Endpoint(_) => SinkKind::Endpoint,
            Self::Stream(_) => SinkKind::Stream,
            Self::Pull => SinkKind::Pull,
            Self::Print => SinkKind::Print,
        }
    }

    /// Who acts when a change leaves for this address.
    #[must_use]
    pub fn outlet(&self) -> Outlet {
        Outlet::of(self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_an_address_decides_the_kind_once() {
        for (base_url, kind) in [
            (None, SinkKind::Pull),
            (Some("https://app.example/hook"), SinkKind::Endpoint),
            (Some("http://127.0.0.1:9"), SinkKind::Endpoint),
            (Some("https://app.example/nats://"), SinkKind::Endpoint),
            (Some("nats"), SinkKind::Endpoint),
            (Some("NATS://broker/git"), SinkKind::Stream),
            (Some("tls://broker/git"), SinkKind::Stream),
            (Some("print:"), SinkKind::Print),
        ] {
            let address = SinkAddress::of(base_url.map(str::to_owned));
            assert_eq!(address.kind(), kind, "{base_url:?}");
            assert_eq!(address.base_url(), base_url, "what is read is written alike");
        }
    }
}
