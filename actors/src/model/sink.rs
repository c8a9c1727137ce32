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
/// The prefix of the stored address of a sink that sends mails.
const MAIL: &str = "mailto:";
/// Schemes of addresses of NATS servers.
const STREAM_SCHEMES: [&str; 2] = ["nats", "tls"];

/// Who acts when a change leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlet {
    /// Tidings sends, and the other side answers.
    Attempt,
    /// A consumer claims changes and settles them.
    Claim,
    /// Changes become tasks in the database; the end of a task settles its change.
    HandOver,
}

impl Outlet {
    /// The outlet of a kind.
    #[must_use]
    pub fn of(kind: SinkKind) -> Self {
        match kind {
            SinkKind::Endpoint | SinkKind::Stream | SinkKind::Print | SinkKind::Mail => Self::Attempt,
            SinkKind::Pull => Self::Claim,
            SinkKind::Tasks => Self::HandOver,
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
    /// Mails go to the addresses behind `mailto:`, which commas part.
    Mail(String),
    /// Changes become tasks of this command.
    Tasks(String),
}

impl SinkAddress {
    /// Parses `base_url` as it is stored and sent; no `base_url` means pull.
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

    /// The `base_url` that [`SinkAddress::of`] reads as this address; tasks have none.
    #[must_use]
    pub fn base_url(&self) -> Option<&str> {
        match self {
            Self::Endpoint(address) | Self::Stream(address) | Self::Mail(address) => Some(address),
            Self::Pull | Self::Tasks(_) => None,
            Self::Print => Some(PRINT),
        }
    }

    /// The address of a sink as its row holds it; `None`: the kind needs an address, and there is none.
    #[must_use]
    pub fn of_row(kind: SinkKind, address: Option<String>) -> Option<Self> {
        match kind {
            SinkKind::Endpoint => address.map(Self::Endpoint),
            SinkKind::Stream => address.map(Self::Stream),
            SinkKind::Mail => address.map(Self::Mail),
            SinkKind::Tasks => address.map(Self::Tasks),
            SinkKind::Pull => Some(Self::Pull),
            SinkKind::Print => Some(Self::Print),
        }
    }

    /// The address that [`SinkAddress::of_row`] reads beside the kind.
    #[must_use]
    pub fn row_address(&self) -> Option<&str> {
        match self {
            Self::Endpoint(text) | Self::Stream(text) | Self::Mail(text) | Self::Tasks(text) => Some(text),
            Self::Pull | Self::Print => None,
        }
    }

    /// The address of a sink that sends mails to these addresses. Only the row of a sink can have this kind;
    /// a `base_url` never does.
    #[must_use]
    pub fn of_mail(to: &[String]) -> Self {
        Self::Mail(format!("{MAIL}{}", to.join(",")))
    }

    /// The recipients of mails; empty for another kind of sink.
    #[must_use]
    pub fn recipients(&self) -> Vec<&str> {
        let Self::Mail(address) = self else { return Vec::new() };
        address.strip_prefix(MAIL).unwrap_or_default().split(',').filter(|to| !to.is_empty()).collect()
    }

    /// The kind of sink that this address is of.
    #[must_use]
    pub fn kind(&self) -> SinkKind {
        match self {
            Self::Endpoint(_) => SinkKind::Endpoint,
            Self::Stream(_) => SinkKind::Stream,
            Self::Pull => SinkKind::Pull,
            Self::Print => SinkKind::Print,
            Self::Mail(_) => SinkKind::Mail,
            Self::Tasks(_) => SinkKind::Tasks,
        }
    }

    /// The command of the tasks that changes become; `None`: changes become no tasks.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Tasks(command) => Some(command),
            _ => None,
        }
    }

    /// Whether Tidings sends changes to this address, a consumer claims them, or they become tasks.
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

    #[test]
    fn a_row_says_the_kind_and_an_address_where_the_kind_needs_one() {
        for address in [
            SinkAddress::Endpoint("https://app.example/hook".into()),
            SinkAddress::Stream("nats://broker/git".into()),
            SinkAddress::Mail("mailto:ops@example.org".into()),
            SinkAddress::Tasks("embed".into()),
            SinkAddress::Pull,
            SinkAddress::Print,
        ] {
            let stored = address.row_address().map(str::to_owned);
            let needs_one = stored.is_some();
            assert_eq!(SinkAddress::of_row(address.kind(), stored), Some(address.clone()));
            assert_eq!(SinkAddress::of_row(address.kind(), None).is_none(), needs_one, "{address:?}");
        }
    }

    #[test]
    fn a_mail_knows_its_recipients_and_no_base_url_makes_one() {
        let to = ["ops@example.org".to_owned(), "dev@example.org".to_owned()];
        let address = SinkAddress::of_mail(&to);
        assert_eq!(address.recipients(), ["ops@example.org", "dev@example.org"]);
        assert_eq!((address.kind(), address.outlet()), (SinkKind::Mail, Outlet::Attempt));
        assert_eq!(SinkAddress::of(address.base_url().map(str::to_owned)).kind(), SinkKind::Endpoint);
        assert_eq!(SinkAddress::Print.recipients(), [""; 0]);
    }
}
