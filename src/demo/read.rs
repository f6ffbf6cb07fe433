//! Reads what a load left in the graph, for the proof.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;

use super::DemoError;
use super::graph::Graph;
use super::load::Conversation;
use super::proof::Found;

/// Everything in the sample but the first `skip` episodes, by group, in the order of writing.
pub(super) fn sample(graph: &Graph, skip: usize) -> BTreeMap<String, Vec<Found>> {
    let mut groups: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for stored in graph.stored().into_iter().skip(skip) {
        let found = Found { name: stored.name, content: stored.content, valid_at: stored.valid_at };
        groups.entry(stored.group).or_default().push(found);
    }
    groups
}

/// An episode as `GET /episodes/{group_id}` shows it.
#[derive(Deserialize)]
struct Node {
    name: String,
    content: String,
    valid_at: String,
}

/// The conversations' groups in a real Graphiti at `url`, in the order of their timestamps: the only one it shows.
pub(super) async fn graphiti(url: &str, conversations: &[Conversation]) -> Result<BTreeMap<String, Vec<Found>>, DemoError> {
    // An error says that there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let fault = |url: &str, error: reqwest::Error| DemoError::ReadBack { url: url.to_owned(), reason: sentence(&error) };
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().map_err(|error| fault(url, error))?;
    let groups = conversations.iter().filter_map(|conversation| {
        let id = conversation.id.as_deref()?;
        // More than there should be: a doubled one must not hide behind the limit.
        let last_n = 2 * (conversation.answered.len() + conversation.failed.len()) + 10;
        Some((id, format!("{url}/episodes/{id}?last_n={last_n}")))
    });
    stream::iter(groups)
        .map(|(id, url)| {
            let client = &client;
            async move {
                let read = async { client.get(&url).send().await?.error_for_status()?.json::<Vec<Node>>().await };
                let nodes = read.await.map_err(|error| fault(&url, error))?;
                let found = |node: Node| {
                    let valid_at = node.valid_at.parse().map_err(|_| DemoError::ReadBack {
                        url: url.clone(),
                        reason: format!("{:?} is no time with an offset", node.valid_at),
                    })?;
                    Ok::<_, DemoError>(Found { name: node.name, content: node.content, valid_at })
                };
                Ok((id.to_owned(), nodes.into_iter().map(found).collect::<Result<_, DemoError>>()?))
            }
        })
        .buffer_unordered(8)
        .try_collect()
        .await
}

/// An error with its causes: reqwest's own text names only the outermost.
fn sentence(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
