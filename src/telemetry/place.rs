//! Places in traces, read off spans and given to spans.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};
use tidings_actors::ports::{Cause, Tracer};
use tracing::{Span, debug};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The tracer of this process: its global subscriber.
#[derive(Clone, Copy, Debug)]
pub struct ProcessTracer;

impl Tracer for ProcessTracer {
    fn place(&self, span: &Span) -> Option<Cause> {
        let context = span.context();
        let span = context.span();
        let facts = span.span_context();
        facts.is_valid().then(|| Cause {
            trace: facts.trace_id().to_bytes(),
            span: facts.span_id().to_bytes(),
            is_sampled: facts.is_sampled(),
        })
    }

    fn follow(&self, span: &Span, cause: Cause) {
        let context = Context::new().with_remote_span_context(context_of(cause));
        if let Err(error) = span.set_parent(context) {
            debug!(%error, "a span stays outside the trace that led to it");
        }
    }

    fn link(&self, span: &Span, cause: Cause) {
        span.add_link(context_of(cause));
    }
}

fn context_of(cause: Cause) -> SpanContext {
    let Cause { trace, span, is_sampled } = cause;
    let flags = if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace, span) = (TraceId::from_bytes(trace), SpanId::from_bytes(span));
    // The context is marked as remote although it is of this process, because its span has ended when it is
    // followed.
    SpanContext::new(trace, span, flags, true, TraceState::default())
}
