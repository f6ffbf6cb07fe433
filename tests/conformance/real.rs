//! The real ones: a file, Graphiti, `LightRAG`, `ArcadeDB` and `FalkorDB`.

use serde_json::Value;

use super::*;
use crate::support::http;
use crate::support::python::{self, RealGraphiti, Service};

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// JSON Lines, in files of a quarter of a MiB.
pub struct InFile {
    dir: TempDir,
}

impl InFile {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
}

impl Backend for InFile {
    fn table(&self, _: &str) -> String {
        let path = self.dir.path().join("episodes.jsonl");
        let path = path.display();
        format!("type = \"file\"\npath = '{path}'\nmax_bytes = \"256KiB\"\nkeep = 100\n")
    }

    fn address(&self) -> Option<String> {
        None
    }

    fn takes_once(&self) -> bool {
        false
    }

    fn refusals(&self, _: &str) -> Vec<(String, Cause)> {
        let nowhere = self.dir.path().join("no/such/dir.jsonl");
        vec![(format!("type = \"file\"\npath = '{}'\n", nowhere.display()), Cause::Local)]
    }

    fn holds(&self, session: &str) -> Vec<Held> {
        let mut files: Vec<_> = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        // The oldest has the highest number, the newest none.
        files.sort_by_key(|path| std::cmp::Reverse(path.extension().and_then(|n| n.to_str()?.parse::<u32>().ok())));
        let lines = files.iter().flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            assert_eq!(lines.next().unwrap(), json!({ "schema": "offramp.episode", "version": 1 }));
            lines.collect::<Vec<_>>()
        });
        let held = |line: Value| Held {
            id: text(&line["id"]).unwrap(),
            content: Some(said(&line["messages"])),
            at: text(&line["occurred_at"]), // else it has the time of the capture, and not what a lane makes of it
            more: Some((text(&line["user"]).unwrap(), line["metadata"].to_string())),
        };
        lines.filter(|line| line["session"] == session).map(held).collect()
    }
}

/// Messages in JSON as `role: text` lines.
pub fn said(messages: &Value) -> String {
    let line = |m: &Value| format!("{}: {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    messages.as_array().unwrap().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Graphiti on `FalkorDB`, behind its REST service or its MCP server.
pub struct Graphiti {
    real: RealGraphiti,
    mcp: bool,
}

impl Graphiti {
    pub fn rest() -> Self {
        Self { real: RealGraphiti::new(), mcp: false }
    }

    pub fn mcp() -> Self {
        Self { real: RealGraphiti::over_mcp(&["--by-group"]), mcp: true }
    }
}

impl Backend for Graphiti {
    fn table(&self, address: &str) -> String {
        if self.mcp {
            return format!("type = \"graphiti-mcp\"\nurl = \"http://{address}/mcp\"\nconfirm = {{ poll = \"100ms\" }}\n");
        }
        format!("type = \"graphiti\"\nurl = \"http://{address}\"\n")
    }

    fn address(&self) -> Option<String> {
        Some(self.real.service.address.to_string())
    }

    fn takes_once(&self) -> bool {
        false
    }

    /// Where there is no session with an MCP server, no episode is to blame.
    fn refusals(&self, status: &str) -> Vec<(String, Cause)> {
        let said = |code| if self.mcp && matches!(code, 302 | 400 | 422) { 404 } else { code };
        let refusal = |code| (self.table(&format!("{status}/{code}")), Cause::Status(said(code)));
        STATUSES.map(refusal).to_vec()
    }

    fn writes(&self) -> &'static [u8] {
        if self.mcp { b"add_memory" } else { b"POST " }
    }

    fn texts(&self) -> (usize, usize) {
        (10, 1 << 20) // each is a walk through a graph
    }

    /// It drops what ends a text in C.
    fn told(&self, text: &str) -> String {
        text.replace('\0', "")
    }

    /// What lies in the future is shown by some databases, and by others not before its time.
    fn latest(&self) -> i64 {
        offramp::clock::now_ms().cast_signed()
    }

    fn holds(&self, session: &str) -> Vec<Held> {
        let held = |node: Value| Held {
            id: text(&node["name"]).unwrap(),
            content: text(&node["content"]).map(|content| content.trim_start_matches("(user): ").to_owned()),
            at: text(&node["valid_at"]).map(|at| format!("{:.3}", at.parse::<jiff::Timestamp>().unwrap())),
            more: None,
        };
        let nodes = self.real.nodes().into_iter();
        nodes.filter(|node| node["group_id"] == session).map(held).collect()
    }
}

/// `LightRAG`'s server, which asks for a key.
pub struct LightRag {
    service: Service,
    _model: Service,
    _dir: TempDir,
}

const KEY: &str = "lightrag-s3cret";

impl LightRag {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = python::model(dir.path());
        let service = python::lightrag(dir.path(), &model, 0);
        Self { service, _model: model, _dir: dir }
    }

    fn with_key(address: &str, key: &str) -> String {
        format!(
            "type = \"http\"\npreset = \"lightrag\"\nurl = \"http://{address}\"\nheaders = {{ x-api-key = \"{key}\" }}\n\
             confirm = {{ poll = \"100ms\" }}\n"
        )
    }
}

impl Backend for LightRag {
    fn table(&self, address: &str) -> String {
        Self::with_key(address, KEY)
    }

    fn address(&self) -> Option<String> {
        Some(self.service.address.to_string())
    }

    fn takes_once(&self) -> bool {
        true
    }

    fn refusals(&self, _: &str) -> Vec<(String, Cause)> {
        let address = self.service.address;
        vec![
            (Self::with_key(&address.to_string(), "wrong"), Cause::Status(403)),
            (Self::with_key(&format!("{address}/nowhere"), KEY), Cause::Status(404)),
        ]
    }

    fn writes(&self) -> &'static [u8] {
        b"POST /documents/text"
    }

    fn texts(&self) -> (usize, usize) {
        (5, 8 << 10) // its model is asked about every few hundred bytes
    }

    fn holds(&self, _: &str) -> Vec<Held> {
        let page = json!({ "page": 1, "page_size": 200, "sort_field": "created_at", "sort_direction": "asc" });
        let headers = [("x-api-key", KEY)];
        let shown = http::request_with(self.service.address, "POST", "/documents/paginated", &headers, Some(&page)).unwrap();
        let held = |document: &Value| {
            assert_eq!(document["status"], "processed", "{document:#}");
            let id = document["file_path"].as_str().unwrap().strip_prefix("offramp-").unwrap().to_owned();
            Held { id, content: None, at: None, more: None }
        };
        shown.json()["documents"].as_array().unwrap().iter().map(held).collect()
    }
}

const GRAPH: &str = "conform";

impl Database {
    fn with(self, address: &str, keys: &str) -> String {
        match self {
            Self::ArcadeDb => format!("type = \"neo4j\"\nurl = \"bolt://{address}\"\nuser = \"root\"\n{keys}\n"),
            Self::FalkorDb => format!("type = \"falkordb\"\nurl = \"redis://{address}\"\ngraph = \"{GRAPH}\"\n{keys}\n"),
        }
    }

    fn database(self) -> String {
        if self == Self::ArcadeDb { format!("database = \"{GRAPH}\"\n") } else { String::new() }
    }
}

impl Backend for Database {
    fn table(&self, address: &str) -> String {
        self.with(address, &format!("password_file = \"password\"\n{}", self.database()))
    }

    fn address(&self) -> Option<String> {
        Some(Database::address(*self).to_string())
    }

    fn takes_once(&self) -> bool {
        true
    }

    fn writes(&self) -> &'static [u8] {
        b"HAS_EPISODE"
    }

    /// What is at fault: who asks, the statement, or the episode.
    fn refusals(&self, _: &str) -> Vec<(String, Cause)> {
        let address = Database::address(*self).to_string();
        let with = |password: &str, keys: &str| {
            self.with(&address, &format!("password_file = \"{password}\"\n{}{keys}", self.database()))
        };
        let mut refusals = vec![
            (with("wrong", ""), Cause::Status(401)),
            (with("password", "statement = 'MERG (e {id: $id})'"), Cause::Status(404)),
            (with("password", "statement = 'CREATE (e:Refused {id: $id, map: $metadata})'"), Cause::Status(400)),
        ];
        if *self == Self::ArcadeDb {
            refusals.push((self.with(&address, "password_file = \"password\"\ndatabase = \"nowhere\""), Cause::Status(404)));
        }
        refusals
    }

    fn texts(&self) -> (usize, usize) {
        (300, 1 << 20)
    }

    /// The one thing that `FalkorDB` can't be told.
    fn told(&self, text: &str) -> String {
        if *self == Self::FalkorDb { text.replace('\0', "\u{FFFD}") } else { text.to_owned() }
    }

    fn holds(&self, session: &str) -> Vec<Held> {
        let of = format!("MATCH (:Session {{id: '{session}'}})-[:HAS_EPISODE]->(e:Episode)");
        let rows =
            self.ask(GRAPH, &[&format!("{of} RETURN e.id, e.content, e.time, e.user, e.metadata ORDER BY e.id")]).remove(0);
        let held = |row: Vec<Value>| Held {
            id: text(&row[0]).unwrap(),
            content: text(&row[1]),
            at: text(&row[2]),
            more: text(&row[3]).zip(text(&row[4])),
        };
        rows.into_iter().map(held).collect()
    }
}
