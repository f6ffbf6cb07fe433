//! What a sink says on the way: it writes to the log what is wrong and keeps nobody from being served, such as a constraint that could not be made.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Waits for `work`, and has what it warned of meanwhile.
pub async fn heard<T>(work: impl Future<Output = T>) -> (T, Vec<String>) {
    let ear = Ear::default();
    let done = work.with_subscriber(Registry::default().with(ear.clone())).await;
    (done, std::mem::take(&mut *ear.0.lock().unwrap_or_else(PoisonError::into_inner)))
}

#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Ear {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN || !event.metadata().target().starts_with("offramp") {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(words.message + &words.fields);
    }
}

/// One line of the log as a sentence, and what belongs to it in brackets.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A String takes it all.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " ({name}: {value:?})"),
        };
    }
}
