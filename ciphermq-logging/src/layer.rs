//! Receives events from `tracing`, and routes their lines.

use std::time::Duration;

use tracing::{
    Event, Level, Subscriber,
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::{
    line::{self, Clock, Fields},
    spool::{Spool, WhenFull},
};

/// How long a line that matters waits for room before it is lost. It blocks a worker of the
/// runtime.
pub(super) const WAIT_WHEN_FULL: Duration = Duration::from_millis(200);

/// A layer that writes every event to one file, by its level, and to the console.
pub(super) struct LogLayer {
    pub(super) info: Spool,
    pub(super) debug: Spool,
    pub(super) error: Spool,
    pub(super) console: Spool,
    pub(super) colour: bool,
    pub(super) clock: Clock,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().replace(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let now = (self.clock)();
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        let (file, when_full) = match level {
            // The broker logs more at these levels than a slow disk can take, and can do without
            // them.
            Level::DEBUG | Level::TRACE => (&self.debug, WhenFull::Drop),
            Level::INFO => (&self.info, WhenFull::Wait(WAIT_WHEN_FULL)),
            Level::WARN | Level::ERROR => (&self.error, WhenFull::Wait(WAIT_WHEN_FULL)),
        };
        line::with_buffers(|buffers| {
            event.record(&mut buffers.fields);
            for span in context.event_scope(event).into_iter().flatten() {
                if let Some(fields) = span.extensions().get::<Fields>() {
                    buffers.fields.append(fields);
                }
            }
            file.push(now, buffers.json(now, level, target), when_full);
            // A terminal that somebody has stopped with Ctrl-S must not stop the broker.
            self.console.push(
                now,
                buffers.readable(now, level, target, self.colour),
                WhenFull::Drop,
            );
        });
    }
}
