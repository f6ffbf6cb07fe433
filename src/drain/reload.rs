//! Other sinks, or the same with other settings, while the drain goes on.
//!
//! A sink is known by its name. One that stays keeps its breaker, its pause and what its confirmations have told; one whose `type` is another
//! is a new one, and finds in the queue what the former left. One that is no longer configured claims nothing more, and its episodes stay in
//! the queue. An attempt in flight ends with what it began with, however long that takes: a claim that nobody finishes would keep its lane
//! until the next start.

use std::sync::{Arc, PoisonError};

use super::runner::{Runner, Setup};
use super::{Drain, scheduler};
use crate::config;
use crate::sink::{self, SetupError, Sink};

impl Drain {
    /// Drains to these sinks from now on, and to no others; the queue must know their names. With an error nothing has changed.
    pub fn reload(&self, sinks: &[config::Sink]) -> Result<(), SetupError> {
        let former = self.runners();
        let setups = sinks.iter().map(|config| {
            let former = former.iter().find(|runner| runner.name == config.name).map(|runner| runner.setup());
            let sink = match former {
                Some(former) if *former.config == *config => former.sink,
                _ => sink::open(config)?,
            };
            Ok((config.clone(), sink))
        });
        self.drain_to(setups.collect::<Result<_, _>>()?);
        Ok(())
    }

    /// As [`reload`](Self::reload), with the sinks opened.
    pub(super) fn drain_to(&self, sinks: Vec<(config::Sink, Arc<dyn Sink>)>) {
        let mut former = self.runners();
        let mut runners = Vec::new();
        for (config, sink) in sinks {
            let at = former.iter().position(|runner| runner.name == config.name);
            let known = at.map(|at| former.swap_remove(at));
            if let Some(runner) = known.as_ref().filter(|runner| runner.setup().sink.kind() == sink.kind()) {
                if *runner.config() != config {
                    tracing::info!(sink = config.name, "the sink's settings have changed");
                    runner.configure(Setup { config: Arc::new(config), sink });
                }
                runners.push(runner.clone());
                continue;
            }
            let Some(id) = self.queue.sink_id(&config.name) else { continue };
            tracing::info!(sink = config.name, kind = sink.kind(), "draining to the sink");
            let runner = Arc::new(Runner::new(id, config, sink, self.queue.clone(), &self.metrics));
            self.spawn(scheduler::run(runner.clone(), self.stop.subscribe()));
            runners.push(runner);
            if let Some(runner) = known {
                runner.leave();
            }
        }
        for runner in former {
            tracing::warn!(sink = runner.name, "the sink is no longer configured: nothing more is sent to it, its episodes stay");
            runner.leave();
        }
        *self.runners.write().unwrap_or_else(PoisonError::into_inner) = runners;
    }
}
