//! Spans really arrive at a collector, and log lines cannot be forged.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tracing::{info, info_span, subscriber::with_default};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Answers 200 to everything and passes on what it was sent.
async fn collector(tcp: TcpListener, requests: mpsc::UnboundedSender<Vec<u8>>) {
    while let Ok((mut stream, _)) = tcp.accept().await {
        let mut request = Vec::new();
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut part).await {
            request.extend_from_slice(&part[..count]);
            if request.windows(7).any(|window| window == b"tidings") {
                break;
            }
        }
        requests.send(request).expect("the test listens");
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        stream.write_all(answer).await.expect("answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_arrive_at_the_collector_and_name_their_trace() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}/v1/traces", tcp.local_addr().expect("bound"));
    let (sender, mut requests) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(collector(tcp, sender));

    let settings = TelemetrySettings { otlp_endpoint: Some(endpoint), ..TelemetrySettings::default() };
    let provider = exporters::Out::of(&settings).and_then(|out| out.traces(&Resource::builder().build()));
    let provider = provider.expect("built").expect("an endpoint is set");
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("tidings"));
    let header = with_default(tracing_subscriber::registry().with(layer), || {
        let span = info_span!("planted-span");
        let _entered = span.enter();
        traceparent()
    });
    let header = header.expect("a valid span");
    assert_eq!(header.len(), 55, "{header}");
    assert!(header.starts_with("00-") && header.ends_with("-01"), "{header}");

    let guard = Guard { traces: Some(provider), logs: None, metrics: None };
    tokio::task::spawn_blocking(|| guard.stop()).await.expect("stopped");
    let request = timeout(Duration::from_secs(10), requests.recv()).await.expect("in time").expect("sent");
    assert!(request.starts_with(b"POST /v1/traces HTTP/1.1"));
    assert!(request.windows(12).any(|window| window == b"planted-span"));
}

#[test]
fn there_is_no_trace_without_a_collector() {
    let _subscriber = tracing_subscriber::registry();
    assert_eq!(traceparent(), None);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn a_log_line_cannot_be_forged_by_what_it_shows() {
    let lines = Lines::default();
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(lines.clone());
    with_default(tracing_subscriber::registry().with(layer), || {
        info!(planted = "\n{\"level\":\"ERROR\"}", "a line with {:?}", "\u{1b}[31m\nred");
    });
    let text = String::from_utf8(lines.0.lock().clone()).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
    assert_eq!(line["level"], "INFO");
}

#[test]
fn a_queue_has_one_label_and_few_queues_have_labels_of_their_own() {
    let named = |count: usize| {
        let name = |number| format!("app_00000000000000000000000001/work{number}").parse().expect("a name");
        let settings =
            TelemetrySettings { queues: (0..count).map(name).collect(), ..TelemetrySettings::default() };
        settings.validate()
    };
    assert!(named(100).is_empty());
    assert_eq!(named(101).len(), 1);
    let name = || "app_00000000000000000000000001/work".parse().expect("a name");
    let twice = TelemetrySettings { queues: vec![name(), name()], ..TelemetrySettings::default() };
    let faults = twice.validate();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("named twice"), "{faults:?}");
}
