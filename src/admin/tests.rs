//! The router from outside, over fakes of the drain and an empty queue.

mod ingest;

use std::collections::BTreeSet;
use std::sync::Mutex;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::api::testing::sinks;
use super::*;

struct FakeDrain {
    statuses: Mutex<Vec<SinkStatus>>,
}

impl Sinks for FakeDrain {
    fn statuses(&self) -> Vec<SinkStatus> {
        self.statuses.lock().unwrap().clone()
    }

    fn set_paused<'a>(&'a self, sink: &'a str, paused: bool) -> BoxFuture<'a, Result<bool, AppendError>> {
        let mut statuses = self.statuses.lock().unwrap();
        let found = statuses.iter_mut().find(|s| s.name == sink);
        let known = found.is_some();
        if let Some(status) = found {
            status.state = if paused { "paused" } else { "running" };
        }
        Box::pin(std::future::ready(Ok(known)))
    }
}

struct Api {
    router: Router,
    readiness: Readiness,
    /// Holds the queue's files for as long as the router lives.
    _dir: tempfile::TempDir,
}

impl Api {
    fn new() -> Self {
        Self::with_token(None)
    }

    fn with_token(token: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir, token);
        let readiness = state.readiness.clone();
        let router = router(state);
        Self { router, readiness, _dir: dir }
    }

    async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Option<&str>) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_owned())),
            None => request.body(Body::empty()),
        };
        self.send(request.unwrap()).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        parts(self.call("GET", path, None).await).await
    }
}

/// Over an empty queue in `dir`.
fn state(dir: &tempfile::TempDir, token: Option<&str>) -> State {
    state_with(limits(dir), token)
}

fn limits(dir: &tempfile::TempDir) -> config::Queue {
    config::Queue {
        path: dir.path().to_owned(),
        durability: config::Durability::Sync,
        commit_wait: Duration::from_millis(250),
        max_episodes: 1000,
        max_bytes: 1 << 30,
        min_free_disk: 0,
        on_full: config::OnFull::Pass,
        keep_delivered: Duration::from_secs(86_400),
        keep_dead: Duration::from_secs(86_400),
        encryption_keys: Vec::new(),
    }
}

fn state_with(limits: config::Queue, token: Option<&str>) -> State {
    let text = "[[sink]]\nname = \"graphiti\"\ntype = \"graphiti\"\nurl = \"http://h\"\n\
                [[sink]]\nname = \"log\"\ntype = \"file\"\npath = \"x\"\n\
                [[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://h\"\n";
    let config = config::read(text, std::path::Path::new("c.toml"), &config::Input::default()).unwrap();
    let queue = Queue::open(&limits, &config.sinks, &Metrics::new()).unwrap();
    let known = |sink: &config::Sink| (sink.name.clone(), queue.sink_id(&sink.name).unwrap(), sink.order_by);
    let settings = Settings {
        sinks: config.sinks.iter().map(known).collect(),
        limits,
        proxies: vec![ProxyFacts {
            name: "agent".into(),
            listen: "127.0.0.1:8880".into(),
            upstream: "http://127.0.0.1:8881".into(),
        }],
        token: token.map(|t| Secret(t.to_owned())),
    };
    State {
        settings: watch::channel(Arc::new(settings)).1,
        queue,
        drain: Arc::new(FakeDrain { statuses: Mutex::new(sinks()) }),
        metrics: Metrics::new(),
        readiness: Readiness::default(),
        started: Instant::now(),
    }
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn parts(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

/// Checks the shape of RFC 9457, and gives the detail.
async fn problem(response: Response, status: u16) -> String {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let code = response.headers()["x-offramp-error"].to_str().unwrap().to_owned();
    let (_, body) = parts(response).await;
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:offramp:error:{code}"));
    assert!(body["title"].is_string());
    body["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_error_is_a_problem_that_says_what_to_do() {
    let api = Api::new();
    assert!(problem(api.call("GET", "/nowhere", None).await, 404).await.contains("/nowhere"));
    let wrong = api.call("PUT", "/api/v1/episodes", None).await;
    assert_eq!(wrong.headers()["allow"], "GET,HEAD,POST");
    assert!(problem(wrong, 405).await.contains("PUT"));
    assert!(problem(api.call("GET", "/api/v1/episodes/17", None).await, 400).await.contains("\"17\" is no episode id"));
    let id = "/api/v1/episodes/01980000-0000-7000-8000-000000000001";
    for method in ["GET", "DELETE"] {
        assert!(problem(api.call(method, id, None).await, 404).await.contains("there is no episode"));
    }
    for (query, said) in [
        ("state=lost", "allowed are pending, in_flight"),
        ("limit=0", "from 1 to 1000"),
        ("cursor=x", "next_cursor"),
        ("sink=nosuch", "the sinks are: graphiti, log"),
        ("sort=desc", "allowed are state, session, sink, limit and cursor"),
    ] {
        let detail = problem(api.call("GET", &format!("/api/v1/episodes?{query}"), None).await, 400).await;
        assert!(detail.contains(said), "{query}: {detail}");
    }
    for (body, status, said) in [
        ("{}", 400, "\"all\": true"),
        ("{", 400, "Failed to parse"),
        ("{\"id\":1}", 400, "unknown field `id`"),
        ("{\"sink\":\"nosuch\"}", 400, "the sinks are"),
        ("{\"all\":true,\"rate\":-1}", 400, "rate is "),
    ] {
        for path in ["/api/v1/dead/redrive", "/api/v1/dead/purge"] {
            let detail = problem(api.call("POST", path, Some(body)).await, status).await;
            assert!(detail.contains(said), "{body}: {detail}");
        }
    }
    problem(api.call("POST", "/api/v1/dead/purge", None).await, 415).await;
    assert!(
        problem(api.call("POST", "/api/v1/sinks/nosuch/pause", None).await, 404).await.contains("the sinks are: graphiti, log")
    );
}

#[tokio::test]
async fn what_is_asked_properly_is_answered() {
    let api = Api::new();
    assert_eq!(api.get("/livez").await, (StatusCode::OK, serde_json::json!({"status": "live"})));
    let (_, status) = api.get("/api/v1/status").await;
    assert_eq!(status["proxies"][0]["upstream"], "http://127.0.0.1:8881");
    assert_eq!(status["sinks"][1]["reason"], "paused by an operator");
    assert_eq!(status["ledger"]["gap"], 0);
    let (_, health) = api.get("/health/graphiti-queue").await;
    assert_eq!((&health["workers"]["max_workers"], &health["queue"]["max_size"]), (&5.into(), &1000.into()));
    let (_, page) = api.get("/api/v1/episodes?state=dead&sink=graphiti&session=a%20b&limit=1000&cursor=0").await;
    assert_eq!(page, serde_json::json!({"episodes": [], "next_cursor": null}));
    let all = Some("{\"all\":true}");
    for path in ["/api/v1/dead/redrive", "/api/v1/dead/purge"] {
        assert_eq!(parts(api.call("POST", path, all).await).await, (StatusCode::OK, serde_json::json!({"count": 0})));
    }
}

#[tokio::test]
async fn a_sink_is_paused_and_resumed() {
    let api = Api::new();
    for (verb, state) in [("pause", "paused"), ("resume", "running")] {
        let (code, body) = parts(api.call("POST", &format!("/api/v1/sinks/graphiti/{verb}"), None).await).await;
        assert_eq!((code, body), (StatusCode::OK, serde_json::json!({"name": "graphiti", "state": state})));
        let (_, status) = api.get("/api/v1/status").await;
        assert_eq!(status["sinks"][0]["state"], state);
    }
}

#[tokio::test]
async fn readyz_gives_its_reasons() {
    let api = Api::new();
    api.readiness.down("proxy agent", "its listener is closed");
    let response = api.call("GET", "/readyz", None).await;
    assert_eq!(response.headers()["x-offramp-error"], "not_ready");
    let (code, body) = parts(response).await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["reasons"], serde_json::json!(["proxy agent: its listener is closed"]));
    api.readiness.up("proxy agent");
    assert_eq!(api.get("/readyz").await, (StatusCode::OK, serde_json::json!({"status": "ready"})));
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let api = Api::new();
    let plain = api.call("GET", "/metrics", None).await;
    assert_eq!(plain.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let plain = text(plain).await;
    assert!(plain.contains("# TYPE offramp_queue_commit_late_total counter") && plain.contains("process_resident_memory_bytes"));

    let request = Request::get("/metrics").header("accept", "application/openmetrics-text; version=1.0.0");
    let open = api.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(open.headers()["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let open = text(open).await;
    assert!(open.contains("# TYPE offramp_queue_commit_late counter\n") && open.ends_with("\n# EOF\n"));
}

#[tokio::test]
async fn inv10_admin_with_a_token_refuses_whoever_does_not_bear_it() {
    let api = Api::with_token(Some("s3cret-token"));
    for (method, path, _) in routes() {
        let path = path.replace("{id}", "x").replace("{name}", "x");
        let response = api.call(method.as_str(), &path, None).await;
        if matches!(path.as_str(), "/livez" | "/readyz") {
            assert_eq!(response.status(), 200, "{path}");
            continue;
        }
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"offramp\"", "{path}");
        let detail = problem(response, 401).await;
        assert!(!detail.contains("s3cret"), "a refusal must not tell the secret");
    }
    problem(api.call("GET", "/nowhere", None).await, 401).await;
    let request = Request::get("/api/v1/status").header("authorization", "Bearer s3cret-token");
    assert_eq!(api.send(request.body(Body::empty()).unwrap()).await.status(), 200);
}

#[tokio::test]
async fn inv10_a_web_page_of_another_origin_changes_nothing() {
    let api = Api::new();
    let pause = |origin: &str| {
        let request = Request::post("/api/v1/sinks/graphiti/pause").header("host", "127.0.0.1:9911").header("origin", origin);
        request.body(Body::empty()).unwrap()
    };
    for origin in ["https://evil.example", "http://127.0.0.1:8000", "null"] {
        problem(api.send(pause(origin)).await, 403).await;
    }
    assert_eq!(api.send(pause("http://127.0.0.1:9911")).await.status(), 200);
}

#[test]
fn openapi_describes_what_is_routed_and_nothing_else() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let methods = ["get", "put", "post", "delete", "patch"];
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let verbs = item.as_object().unwrap().keys().filter(|k| methods.contains(&k.as_str()));
            verbs.map(move |verb| (verb.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    let routed: BTreeSet<(String, String)> = routes().iter().map(|(m, path, _)| (m.to_string(), (*path).to_owned())).collect();
    assert_eq!(described, routed);
    for schema in OPENAPI.split("#/components/").skip(1).filter_map(|rest| rest.split('"').next()) {
        let pointer = format!("/components/{schema}");
        assert!(document.pointer(&pointer).is_some(), "{pointer} is referred to and not there");
    }
}

#[tokio::test]
async fn serve_ends_when_told_to_even_with_a_connection_open() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(Listener::Tcp(listener), state(&dir, None), async move { drop(stopped.await) }));
    let open = tokio::net::TcpStream::connect(address).await.unwrap();
    open.writable().await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), serving).await.unwrap().unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "its listener is closed");
}
