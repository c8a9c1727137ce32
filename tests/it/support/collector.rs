//! A collector on a real socket: takes what is exported over OTLP, keeps it as it came, and reads it
//! with the messages of the protocol.

use std::{
    io::{BufReader, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use data_encoding::HEXLOWER;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;

use super::http::{Message, read_body, read_head};

/// One export as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// Path and headers, as text.
    pub(crate) head: Message,
    /// The request body, in protobuf.
    pub(crate) body: Vec<u8>,
}

/// One exported span, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The name of the span.
    pub(crate) name: String,
    /// Its trace, in hexadecimal digits.
    pub(crate) trace: String,
    /// The id of the span, in hexadecimal digits.
    pub(crate) id: String,
    /// The span above it; empty where there is none.
    pub(crate) parent: String,
    /// The traces that it links to.
    pub(crate) links: Vec<String>,
}

/// A collector of OTLP exports, which keeps all that it receives.
pub(crate) struct Collector {
    address: SocketAddr,
    exports: Arc<Mutex<Vec<Export>>>,
}

impl Collector {
    /// On a free port.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let exports = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&exports);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
                    while let Ok(Some((first_line, headers))) = read_head(&mut reader) {
                        let head = Message { first_line, headers, body: Vec::new() };
                        let Ok(body) = read_body(&mut reader, &head, false) else { return };
                        locked(&kept).push(Export { head, body });
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, exports }
    }

    /// Where one of `traces`, `metrics`, `logs` goes.
    pub(crate) fn endpoint(&self, what: &str) -> String {
        format!("http://{}/v1/{what}", self.address)
    }

    /// Everything that came, each with a name that may be shown.
    pub(crate) fn bodies(&self) -> Vec<(String, Vec<u8>)> {
        let named = |export: &Export| (export.head.first_line.clone(), export.body.clone());
        locked(&self.exports).iter().map(named).collect()
    }

    /// What came for one of `traces`, `metrics`, `logs`.
    pub(crate) fn exports(&self, what: &str) -> Vec<Export> {
        let line = format!("POST /v1/{what} ");
        locked(&self.exports)
            .iter()
            .filter(|export| export.head.first_line.starts_with(&line))
            .cloned()
            .collect()
    }

    /// Every span that came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for export in self.exports("traces") {
            let request = ExportTraceServiceRequest::decode(export.body.as_slice()).expect("spans");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            spans.extend(scopes.flat_map(|scope| scope.spans).map(|span| Span {
                name: span.name,
                trace: HEXLOWER.encode(&span.trace_id),
                id: HEXLOWER.encode(&span.span_id),
                parent: HEXLOWER.encode(&span.parent_span_id),
                links: span.links.iter().map(|link| HEXLOWER.encode(&link.trace_id)).collect(),
            }));
        }
        spans
    }

    /// The names of all numbers that came.
    pub(crate) fn metrics(&self) -> Vec<String> {
        let mut names = Vec::new();
        for export in self.exports("metrics") {
            let request = ExportMetricsServiceRequest::decode(export.body.as_slice()).expect("numbers");
            let scopes = request.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics);
            names.extend(scopes.flat_map(|scope| scope.metrics).map(|metric| metric.name));
        }
        names
    }

    /// The texts of all log lines that came.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for export in self.exports("logs") {
            let request = ExportLogsServiceRequest::decode(export.body.as_slice()).expect("lines");
            let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
            lines.extend(
                scopes.flat_map(|scope| scope.log_records).map(|record| format!("{:?}", record.body)),
            );
        }
        lines
    }
}

fn locked(exports: &Mutex<Vec<Export>>) -> MutexGuard<'_, Vec<Export>> {
    exports.lock().unwrap_or_else(PoisonError::into_inner)
}
