//! Checks addresses: that of the server, the mail server, the rules of egress, the endpoints of apps by these
//! rules, and on demand the Git hosts.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use reqwest::Method;
use tidings_actors::{model::sink::SinkAddress, ports::Clock, time::Timestamp};
use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::Finding;
use crate::{
    egress::{Egress, EgressError},
    settings::{OnboardingMode, Settings},
    sinks::{mail::MailTls, nats::target::Target},
};

/// How long the proxy may take to take a connection.
const PROXY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the mail server may take until it takes a connection.
const MAIL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a host may take to answer.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);
/// Most hosts that are asked.
const HOSTS_MAX: usize = 50;
/// Clocks that differ by more than this break signatures with a timestamp, in milliseconds.
const SKEW_MAX: i64 = 60_000;
/// A network with fewer bits than this is most of the internet.
const WIDE_BITS: u8 = 8;

/// Checks that the server can listen at its addresses.
pub(super) fn listen(settings: &Settings, is_running: bool, findings: &mut Vec<Finding>) {
    const CHECK: &str = "listen";
    let listen = settings.server.listen;
    // A running server uses the address itself; port 0 is always free.
    if !is_running {
        findings.push(match TcpListener::bind(listen) {
            Ok(_) => Finding::ok(CHECK, format!("{listen} is free")),
            Err(error) => Finding::fault(
                CHECK,
                format!("{listen} cannot be listened on: {error}"),
                "stop what listens there, or set server.listen to another address of this machine",
            ),
        });
    }
    if settings.onboarding.mode == OnboardingMode::Open && !listen.ip().is_loopback() {
        findings.push(Finding::warning(
            CHECK,
            format!("onboarding.mode is open on {listen}: anyone who reaches it may register an app"),
            "set onboarding.mode to \"admin\", unless only your own apps reach it",
        ));
    }
}

/// Checks the mail server, whether it takes connections, and whether mails could go to strangers. Sends no
/// mail: `tidings mail test` does.
pub(super) async fn mail(settings: &Settings, egress: Option<&Egress>, findings: &mut Vec<Finding>) {
    const CHECK: &str = "mail";
    let Some(server) = settings.mail_server() else { return };
    let before = findings.len();
    if server.tls == MailTls::None && !settings.mail.is_on_this_machine() {
        findings.push(Finding::warning(
            CHECK,
            format!("mails travel unencrypted to {}:{}", server.host, server.port),
            "set mail.tls to \"implicit\" or \"starttls\"",
        ));
    }
    let names_contacts = settings.mail.allow.iter().any(|entry| entry.trim().eq_ignore_ascii_case("contact"));
    if names_contacts && settings.onboarding.mode == OnboardingMode::Open {
        findings.push(Finding::warning(
            CHECK,
            "onboarding.mode is open, where strangers name contacts: contact in mail.allow permits nothing",
            "list addresses and domains of yours in mail.allow instead of contact",
        ));
    }
    let named = format!("{}:{}", server.host, server.port);
    let dialled = match egress {
        Some(egress) => timeout(MAIL_TIMEOUT, egress.dial_mail(&server.host, server.port)).await,
        None => return,
    };
    let why = match dialled {
        Ok(Ok(_)) if findings.len() > before => return,
        Ok(Ok(_)) => {
            let found =
                format!("mails go through {named}, which takes connections (tidings mail test sends one)");
            return findings.push(Finding::ok(CHECK, found));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no connection within {} s", MAIL_TIMEOUT.as_secs()),
    };
    findings.push(Finding::fault(
        CHECK,
        format!("the mail server {named} cannot be reached, so no mail is sent: {why}"),
        "start the mail server, open the firewall on the way to it, or correct mail.server and mail.port",
    ));
}

/// The guarded client, where it can be built.
pub(super) fn egress(settings: &Settings, findings: &mut Vec<Finding>) -> Option<Egress> {
    const CHECK: &str = "egress";
    let before = findings.len();
    for entry in &settings.egress.allow {
        let network = entry.rsplit_once("]:").map_or(entry.as_str(), |(network, _)| network);
        let network = network.trim_matches(['[', ']']).parse::<IpNet>();
        if network.is_ok_and(|network| network.prefix_len() < WIDE_BITS) {
            let found = format!("egress.allow names {entry}: apps can reach nearly everything inside");
            findings.push(Finding::warning(CHECK, found, "name only the networks or hosts that are needed"));
        }
    }
    if settings.egress.allow_http {
        findings.push(Finding::warning(
            CHECK,
            "egress.allow_http is set: contents and tokens may travel unencrypted",
            "give receivers and Git hosts certificates, then unset it",
        ));
    }
    match Egress::new(&settings.egress) {
        Ok(egress) => {
            if findings.len() == before {
                let proxy = if settings.egress.proxy.is_some() { "through the proxy" } else { "directly" };
                findings.push(Finding::ok(CHECK, format!("the rules can be used; requests go {proxy}")));
            }
            Some(egress)
        }
        Err(error) => {
            let remedy = match error {
                EgressError::Tls(_) => "egress.ca_file must hold certificates as PEM that this user can read",
                _ => "correct the section egress of the settings",
            };
            findings.push(Finding::fault(CHECK, error.to_string(), remedy));
            None
        }
    }
}

/// Checks whether the proxy, if any, can be reached: every request goes through it.
pub(super) async fn proxy(settings: &Settings, findings: &mut Vec<Finding>) {
    const CHECK: &str = "proxy";
    let Some(proxy) = &settings.egress.proxy else { return };
    // The rest of its address is not shown, because it may hold a password.
    let (host, port) = (proxy.host_str().unwrap_or_default(), proxy.port_or_known_default().unwrap_or(0));
    let bare = host.trim_matches(['[', ']']);
    let connected = timeout(PROXY_TIMEOUT, TcpStream::connect((bare, port))).await;
    let why = match connected {
        Ok(Ok(_)) => {
            return findings.push(Finding::ok(CHECK, format!("{host}:{port} takes connections")));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it did not answer within {} s", PROXY_TIMEOUT.as_secs()),
    };
    findings.push(Finding::fault(
        CHECK,
        format!("{host}:{port} cannot be reached, and everything that leaves goes through it: {why}"),
        "start the proxy, open the firewall on the way to it, or correct egress.proxy (left out: directly)",
    ));
}

/// Reports apps with an endpoint or stream that the rules refuse, without sending anything.
pub(super) fn endpoints(egress: &Egress, endpoints: &[(String, String)], findings: &mut Vec<Finding>) {
    const CHECK: &str = "endpoints";
    let refused = endpoints.iter().filter_map(|(app, address)| {
        let url = Url::parse(address).ok()?;
        let why = refusal(egress, address, &url)?;
        Some(format!("{app} ({}): {why}", url.host_str().unwrap_or_default()))
    });
    let refused: Vec<String> = refused.collect();
    findings.push(if refused.is_empty() {
        Finding::ok(CHECK, format!("the rules of egress refuse none of {}", endpoints.len()))
    } else {
        Finding::fault(
            CHECK,
            format!("{} of {} are refused: {}", refused.len(), endpoints.len(), refused.join("; ")),
            "name their networks or hosts in egress.allow, or let the apps change their address",
        )
    });
}

/// Why the rules refuse the address of a sink; `None`: they do not.
fn refusal(egress: &Egress, address: &str, url: &Url) -> Option<String> {
    if !matches!(SinkAddress::of(Some(address.to_owned())), SinkAddress::Stream(_)) {
        return egress.request(Method::POST, url).err().map(|error| error.to_string());
    }
    match Target::parse(address) {
        Ok(Target { host, port, needs_tls, .. }) => {
            egress.judged(&host, port, !needs_tls).err().map(|error| error.to_string())
        }
        Err(fault) => Some(format!("the address {fault}")),
    }
}

/// Local repositories that are watched: whether they are there and may be read.
pub(super) fn local_repositories(settings: &Settings, repositories: &[String], findings: &mut Vec<Finding>) {
    const CHECK: &str = "repositories";
    for url in repositories {
        let path = url.strip_prefix("file://").unwrap_or(url);
        if !path.starts_with('/') {
            continue;
        }
        if !settings.git.allow_local {
            let remedy = "set git.allow_local, or unwatch it";
            findings.push(Finding::fault(
                CHECK,
                format!("{path} is watched, and git.allow_local is not set"),
                remedy,
            ));
        } else if std::fs::read_dir(Path::new(path)).is_err() {
            let remedy = "mount it, or let the user that runs the server read it";
            findings.push(Finding::fault(CHECK, format!("{path} cannot be read"), remedy));
        }
    }
}

/// Asks each Git host for one of its repositories: whether the host answers, and the time of its clock.
pub(super) async fn hosts(
    egress: &Egress,
    repositories: &[String],
    clock: &dyn Clock,
    findings: &mut Vec<Finding>,
) {
    const CHECK: &str = "host";
    let mut by_host: BTreeMap<String, Url> = BTreeMap::new();
    for url in repositories.iter().filter_map(|url| Url::parse(url).ok()) {
        if let (true, Some(host)) = (url.scheme().starts_with("http"), url.host_str()) {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            by_host.entry(format!("{host}{port}")).or_insert(url);
        }
    }
    let all = by_host.len();
    for (host, url) in by_host.into_iter().take(HOSTS_MAX) {
        findings.push(host_answer(egress, &host, &url, clock).await.unwrap_or_else(|why| {
            let remedy = "look at DNS, at the firewall, at egress.proxy, egress.allow and egress.ca_file";
            Finding::fault(CHECK, format!("{host} does not answer: {why}"), remedy)
        }));
    }
    if all > HOSTS_MAX {
        findings.push(Finding::ok(CHECK, format!("{} more hosts were not asked", all - HOSTS_MAX)));
    }
}

async fn host_answer(egress: &Egress, host: &str, url: &Url, clock: &dyn Clock) -> Result<Finding, String> {
    let mut asked = url.clone();
    asked.set_path(&format!("{}/info/refs", url.path().trim_end_matches('/')));
    asked.set_query(Some("service=git-upload-pack"));
    let began = Instant::now();
    let request = egress.request(Method::GET, &asked).map_err(|error| error.to_string())?;
    let answer = request.timeout(HOST_TIMEOUT).send().await.map_err(|error| said(&error))?;
    let took = began.elapsed().as_millis();
    let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let theirs = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
    let theirs = theirs.map(|since| Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
    let skew = theirs.map_or(0, |theirs| clock.now().0 - theirs.0);
    if skew.abs() > SKEW_MAX {
        let found = format!("the clock of this machine differs by {} s from that of {host}", skew / 1000);
        return Ok(Finding::fault("clock", found, "set the clock of this machine (is it kept by NTP?)"));
    }
    let status = answer.status().as_u16();
    if status >= 500 {
        return Err(format!("it says {status}"));
    }
    Ok(Finding::ok("host", format!("{host} answers with {status} within {took} ms")))
}

/// The innermost cause, which is the most specific; it contains no part of the address.
fn said(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if error.is_timeout() { "it took too long".to_owned() } else { cause.to_string() }
}
