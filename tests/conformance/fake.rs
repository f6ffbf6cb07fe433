//! What stands for services that can't be run here: it takes what they take, and shows what they show, as their documentation says.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use serde_json::Value;

use super::real::said;
use super::*;

/// Which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `preset = "mem0"`
    Mem0,
    /// `preset = "zep"`
    Zep,
    /// `preset = "cognee"`
    Cognee,
    /// `preset = "letta"`
    Letta,
    /// Templates of one's own.
    Own,
    /// A service that gets its requests again.
    Replay,
}

/// One that runs.
pub struct Fake {
    dialect: Dialect,
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
}

#[derive(Default)]
struct Store {
    /// Sessions with what was said in them, in the order in which it came.
    taken: Vec<(String, Held)>,
    /// What it takes once, and has taken.
    known: HashSet<String>,
}

impl Fake {
    /// On a port of its own; goes with its runtime.
    pub fn start(dialect: Dialect, runtime: &Runtime) -> Self {
        let store = Arc::<Mutex<Store>>::default();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(serve).with_state((dialect, store.clone()));
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { dialect, address, store }
    }
}

async fn serve(
    State((dialect, store)): State<(Dialect, Arc<Mutex<Store>>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let mut store = store.lock().unwrap();
    if method != Method::POST {
        return (StatusCode::OK, show(dialect, &uri, &store).to_string());
    }
    let (session, held, key) = read(dialect, &uri, &headers, &body);
    if key.is_none_or(|key| store.known.insert(key)) {
        store.taken.push((session, held));
    }
    (StatusCode::OK, "{}".to_owned())
}

/// Session, episode, and what makes a second copy known as one.
fn read(dialect: Dialect, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> (String, Held, Option<String>) {
    let part = |n: usize| uri.path().split('/').nth(n).unwrap().to_owned();
    let key = headers.get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {json:#}")).to_owned();
    let held = |id: String, content: String, at: String| Held { id, content: Some(content), at: Some(at), more: None };
    match dialect {
        Dialect::Mem0 => {
            let metadata = &json["metadata"];
            let held = held(text(&metadata["offramp_id"]), said(&json["messages"]), text(&metadata["offramp_at"]));
            (text(&json["run_id"]), held, None)
        }
        Dialect::Zep => {
            let first = &json["messages"][0];
            let id = text(&first["metadata"]["offramp_id"]);
            assert_eq!(key.as_ref(), Some(&id), "the key of an attempt is that of the episode");
            (part(4), held(id, said(&json["messages"]), text(&first["reference_time"])), key)
        }
        Dialect::Cognee => {
            // Two parts: the data set, and a file with a line before the text.
            let form = String::from_utf8(body.to_vec()).unwrap();
            let (first, rest) = form.split_once("\r\n\r\n").unwrap();
            assert!(first.contains("name=\"datasetName\""), "{first}");
            let (dataset, file) = rest.split_once("\r\n--offramp-").unwrap();
            let (second, file) = file.split_once("\r\n\r\n").unwrap();
            let id = second.split_once("filename=\"offramp-").unwrap().1.split_once(".txt").unwrap().0;
            let file = file.rsplit_once("\r\n--offramp-").unwrap().0;
            let (line, content) = file.split_once('\n').unwrap();
            let at = line.split_once(", ").unwrap().0;
            (dataset.to_owned(), held(id.to_owned(), content.to_owned(), at.to_owned()), Some(format!("{dataset}\n{file}")))
        }
        Dialect::Letta => (part(3), held(text(&json["tags"][1]), text(&json["text"]), text(&json["created_at"])), None),
        Dialect::Own => {
            assert_eq!(key, Some(text(&json["id"])));
            (text(&json["session"]), held(text(&json["id"]), text(&json["text"]), text(&json["at"])), key)
        }
        Dialect::Replay => {
            // It knows nothing of episodes: the key is all that names one.
            let held = Held { at: None, ..held(key.clone().unwrap(), text(&json["text"]), String::new()) };
            (text(&json["session"]), held, key)
        }
    }
}

/// The answer to a look.
fn show(dialect: Dialect, uri: &Uri, store: &Store) -> Value {
    let part = |n: usize| uri.path().split('/').nth(n).unwrap_or_default();
    let of = |session: &str| -> Vec<String> {
        store.taken.iter().filter(|(other, _)| other == session).map(|(_, held)| held.id.clone()).collect()
    };
    let items = |session: &str| -> Value { of(session).iter().map(|id| json!({ "metadata": { "offramp_id": id } })).collect() };
    match dialect {
        Dialect::Mem0 => {
            let session = uri.query().unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("run_id=")).unwrap();
            json!({ "results": items(session) })
        }
        Dialect::Zep => json!({ "items": items(part(4)) }),
        Dialect::Letta => of(part(3)).iter().map(|id| json!({ "tags": ["offramp", id] })).collect(),
        Dialect::Own => json!({ "found": store.taken.iter().any(|(_, held)| held.id == part(2)) }),
        Dialect::Cognee | Dialect::Replay => json!({}),
    }
}

impl Backend for Fake {
    fn table(&self, address: &str) -> String {
        let url = format!("url = \"http://{address}\"\n");
        match self.dialect {
            Dialect::Mem0 => format!("type = \"http\"\npreset = \"mem0\"\n{url}"),
            Dialect::Zep => format!("type = \"http\"\npreset = \"zep\"\n{url}confirm = {{ poll = \"10ms\" }}\n"),
            Dialect::Cognee => format!("type = \"http\"\npreset = \"cognee\"\n{url}"),
            Dialect::Letta => format!("type = \"http\"\npreset = \"letta\"\n{url}"),
            Dialect::Replay => format!("type = \"replay\"\n{url}"),
            Dialect::Own => format!(
                "type = \"http\"\n{url}path = \"/episodes\"\nheaders = {{ idempotency-key = \"{{{{ id }}}}\" }}\n\
                 body = '{{\"id\": \"{{{{ id }}}}\", \"session\": {{{{ session | tojson }}}}, \"text\": {{{{ transcript | tojson }}}}, \"at\": \"{{{{ at }}}}\"}}'\n\
                 confirm = {{ poll = \"10ms\", path = \"/episodes/{{{{ id }}}}\", present = \"answer.found\" }}\n"
            ),
        }
    }

    fn address(&self) -> Option<String> {
        Some(self.address.to_string())
    }

    fn takes_once(&self) -> bool {
        !matches!(self.dialect, Dialect::Mem0 | Dialect::Letta)
    }

    fn holds(&self, session: &str) -> Vec<Held> {
        let store = self.store.lock().unwrap();
        store.taken.iter().filter(|(other, _)| other == session).map(|(_, held)| held.clone()).collect()
    }
}
