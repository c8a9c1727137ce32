//! [`Tracer`]: which span of a trace led to which, across mailboxes and rows.

use tracing::Span;

/// A place in a trace, as W3C `traceparent` names it. Nothing in it tells of what was done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The trace.
    pub trace: [u8; 16],
    /// The span.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

/// Reads and writes places in traces.
pub trait Tracer: Send + Sync + 'static {
    /// The place that `span` has; `None` where nothing is traced.
    fn place(&self, span: &Span) -> Option<Cause>;
    /// Makes `span`, which nobody entered yet, part of the trace of its cause, right below it.
    fn follow(&self, span: &Span, cause: Cause);
    /// Names the cause of `span`, which stays a trace of its own.
    fn link(&self, span: &Span, cause: Cause);
}
