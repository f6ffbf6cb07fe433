//! A streamed response on its way through: decoded, and put together event by event.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::decode::Decoder;
use super::stream::{Assembled, Assembler, Plan};
use crate::config::StreamFormat;

/// Watches a stream pass.
#[derive(Debug)]
pub struct Reassembly {
    decoder: Option<Decoder>,
    assembler: Assembler,
    /// It can't be decoded (any more).
    is_broken: bool,
}

impl Reassembly {
    /// For a response with this head; none where it is no stream.
    pub fn of(plan: &Arc<Plan>, headers: &HeaderMap) -> Option<Self> {
        let format = format(headers, plan.format)?;
        let decoder = Decoder::of_stream(headers, plan.max);
        if let Err(error) = &decoder {
            tracing::debug!(%error, "a stream can't be read; its traffic is untouched");
        }
        Some(Self {
            is_broken: decoder.is_err(),
            decoder: decoder.ok().flatten(),
            assembler: Assembler::new(Arc::clone(plan), format),
        })
    }

    /// Sees bytes pass; whether they hold the end marker.
    pub fn pass(&mut self, data: &[u8]) -> bool {
        if self.is_broken {
            return false;
        }
        let Some(decoder) = &mut self.decoder else { return self.assembler.feed(data) };
        let (mut marked, assembler) = (false, &mut self.assembler);
        if let Err(error) = decoder.feed(data, |piece| marked |= assembler.feed(piece)) {
            tracing::debug!(%error, "a stream can't be read any further; its traffic is untouched");
            self.is_broken = true;
        }
        marked
    }

    /// What it was.
    pub fn finish(self) -> Assembled {
        let mut assembled = self.assembler.finish();
        assembled.truncated |= self.is_broken || (!assembled.ended && self.decoder.is_some_and(|decoder| decoder.is_cut()));
        assembled
    }
}

/// How a response is framed, by its `Content-Type`; none where it is one document.
fn format(headers: &HeaderMap, rules: StreamFormat) -> Option<StreamFormat> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => Some(StreamFormat::Sse),
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/x-jsonlines"
        | "application/stream+json" => Some(StreamFormat::Ndjson),
        // Some servers stream lines under the name of one document; what has a length is one.
        "application/json" if rules == StreamFormat::Ndjson && !headers.contains_key(header::CONTENT_LENGTH) => {
            Some(StreamFormat::Ndjson)
        }
        _ => None,
    }
}
