//! The stack: what a request goes through, top to bottom, and the reason why each layer stands where it stands.

use std::sync::Arc;

use tower::ServiceBuilder;

use crate::proxy::Proxy;
use crate::proxy::forward::Forward;
use crate::proxy::guard::{GuardLayer, Guarded};
use crate::proxy::line::{InLine, InLineLayer};
use crate::proxy::measure::{Measure, MeasureLayer};
use crate::proxy::rescue::{Rescue, RescueLayer};

/// What serves a proxy's requests. A clone per request costs a few reference counts.
pub type Stack = Rescue<Measure<Guarded<InLine<Forward>>>>;

/// Builds the stack of a proxy.
pub fn build(proxy: &Arc<Proxy>) -> Stack {
    ServiceBuilder::new()
        // Outermost, so that nothing that goes wrong further in, error or panic, leaves without being a response: a panic must
        // never cost the connection, and with it the other requests that the client sends on it.
        .layer(RescueLayer { proxy: proxy.name().into(), fallback: Arc::clone(proxy.fallback()) })
        // Outside of the line, so that the time spent waiting is part of what is measured, and so is who was sent away. It
        // finds the route first: everything further in is labelled with it.
        .layer(MeasureLayer { meters: Arc::clone(proxy.meters()), routes: Arc::clone(proxy.routes()) })
        // Outside of the line: nobody waits for what will not be tried. Inside of the measurement: who is sent away is counted.
        .layer(GuardLayer(proxy.guard().cloned()))
        // Before anything that costs: who waits holds no connection to the upstream, no capture and no buffer.
        .layer(InLineLayer(Arc::clone(proxy.line())))
        // Capture is no layer: it begins in here, once a request is really forwarded, and ends with the response's last byte.
        .service(Forward(Arc::clone(proxy)))
}
