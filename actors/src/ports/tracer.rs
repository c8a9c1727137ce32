//! [`Tracer`]: which span of a trace led to which, across mailboxes and rows.

use tracing::Span;

/// A place in a trace, as W3C `traceparent` names it. It contains no data of the work itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The trace id (`trace-id` of W3C Trace Context).
    pub trace: [u8; 16],
    /// The id of the span (`parent-id` of W3C Trace Context).
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub is_sampled: bool,
}

/// Reads and writes places in traces.
pub trait Tracer: Send + Sync + 'static {
    /// The place of `span` in its trace; `None` if nothing is traced.
    fn place(&self, span: &Span) -> Option<Cause>;
    /// Makes `span`, which must not be entered yet, a child of its cause.
    fn follow(&self, span: &Span, cause: Cause);
    /// Links `span` to its cause; `span` stays in its own trace.
    fn link(&self, span: &Span, cause: Cause);
}
