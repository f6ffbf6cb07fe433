//! Commands from their arguments to their output and exit code.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use futures_util::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener};

use super::output::tests::Captured;
use super::*;
use crate::admin::api::testing::sinks;
use crate::admin::{self, Readiness, Sinks};
use crate::config::{self, Admin, Listen, Log, LogFormat, Secret};
use crate::drain::SinkStatus;
use crate::queue::{AppendError, Queue};
use crate::server::Listener;
use crate::telemetry::metrics::Metrics;

struct FakeDrain;

impl Sinks for FakeDrain {
    fn statuses(&self) -> Vec<SinkStatus> {
        sinks()
    }

    fn set_paused<'a>(&'a self, _: &'a str, _: bool) -> BoxFuture<'a, Result<bool, AppendError>> {
        Box::pin(std::future::ready(Ok(true)))
    }
}

fn config(queue: &Path, listen: Listen, token: Option<&str>) -> Config {
    Config {
        proxies: vec![],
        queue: config::Queue {
            path: queue.to_owned(),
            durability: config::Durability::Sync,
            commit_wait: Duration::from_millis(250),
            max_episodes: 1000,
            max_bytes: 1 << 30,
            min_free_disk: 0,
            on_full: config::OnFull::Pass,
            keep_delivered: Duration::from_secs(86_400),
            keep_dead: Duration::from_secs(86_400),
            encryption_keys: Vec::new(),
        },
        sinks: vec![],
        admin: Admin { listen, token: token.map(|t| Secret(t.to_owned())) },
        log: Log { level: "info".into(), format: LogFormat::Auto, file: None },
    }
}

/// Serves the admin API of a running offramp, until the test ends.
fn serve(listener: Listener, config: &Config) {
    let settings =
        admin::Settings { limits: config.queue.clone(), sinks: Vec::new(), proxies: vec![], token: config.admin.token.clone() };
    let state = admin::State {
        queue: Queue::open(&config.queue, &config.sinks, &Metrics::new()).unwrap(),
        drain: Arc::new(FakeDrain),
        metrics: Metrics::new(),
        readiness: Readiness::default(),
        settings: tokio::sync::watch::channel(Arc::new(settings)).1,
        started: Instant::now(),
    };
    tokio::spawn(admin::serve(listener, state, std::future::pending()));
}

async fn running(dir: &Path, token: Option<&str>) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = config(&dir.join("queue"), Listen::Tcp(address), token);
    serve(Listener::Tcp(listener), &config);
    config
}

/// A loopback address where nobody listens.
async fn nobody() -> Listen {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Listen::Tcp(listener.local_addr().unwrap().to_string())
}

/// What a command writes to standard output, whether it fails or not.
async fn captured(line: &str, config: &Config) -> (u8, String) {
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    let out = Captured::default();
    let done = dispatch(cli.command, config, &mut out.output()).await;
    (done.map_or_else(|failure| failure.code(), |()| 0), out.text())
}

async fn run(line: &str, config: &Config) -> (u8, String) {
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    let out = Captured::default();
    match dispatch(cli.command, config, &mut out.output()).await {
        Ok(()) => (0, out.text()),
        Err(failure) => (failure.code(), failure.to_string()),
    }
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn usage_errors_say_what_is_missing_and_end_with_2() {
    for (line, said) in [
        ("offramp", "Usage: offramp"),
        ("offramp dead redrive", "<ID|--sink <NAME>|--session <KEY>|--reason <REASON>|--all>"),
        ("offramp dead purge --all", "--yes"),
        ("offramp dead purge --yes", "required"),
        ("offramp dead redrive --all --sink graphiti", "cannot be used with"),
        ("offramp dead redrive --all --rate 0", "a number above 0"),
        ("offramp replay", "--sink <NAME>"),
        ("offramp replay --sink a --since yesterday", "a time like 2026-01-31"),
        ("offramp drain --timeout soon", "a duration like 30s"),
        ("offramp purge old", "--yes"),
        ("offramp sink test", "<SINK>"),
        ("offramp sink test graphiti --timeout soon", "a duration like 30s"),
        ("offramp completions tcsh", "[possible values: bash, elvish, fish, powershell, zsh]"),
        ("offramp episodes --state lost", "allowed are pending, in_flight, delivered, dead, purged, expired"),
        ("offramp episodes --limit 0", "1.."),
        ("offramp show 17", "invalid value '17'"),
        ("offramp presets a b", "unexpected argument 'b'"),
    ] {
        let e = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{line}");
        assert!(e.to_string().contains(said), "{line}: {e}");
    }
    for line in [
        "offramp --set queue.path=/x status --json --watch",
        "offramp episodes --state in_flight --session a --sink b --limit 5000 --json --config /x",
        "offramp dead redrive 01980000-0000-7000-8000-000000000001 --sink graphiti",
        "offramp dead purge --reason max_age --yes",
        "offramp dead redrive --all --rate 0.5",
        "offramp replay --sink a --since 2026-01-31",
        "offramp replay --sink a --since 2026-01-31T08:00:00+01:00 --session s --no-wait",
        "offramp replay --sink a --since 6h",
        "offramp drain --timeout 90s",
        "offramp man",
    ] {
        assert!(Cli::try_parse_from(line.split_whitespace()).is_ok(), "{line}");
    }
}

/// What `presets` prints; it needs no configuration.
fn presets(line: &str) -> (u8, String) {
    let Command::Presets(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else { panic!("{line}") };
    let out = Captured::default();
    match presets::run(&args, &mut out.output()) {
        Ok(()) => (0, out.text()),
        Err(failure) => (failure.code(), failure.to_string()),
    }
}

#[test]
fn presets_are_listed_with_what_each_is_for() {
    let (code, list) = presets("offramp presets");
    assert_eq!(code, 0);
    assert!(list.starts_with("PRESET "), "{list}");
    assert!(list.contains("\ndify                POST /v1/chat-messages of Dify's service API, "), "{list}");
    let all = || config::presets::names().chain(config::presets::sinks());
    assert_eq!(list.lines().count(), all().count() + 1);

    let (_, json) = presets("offramp presets --json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<_> = json["presets"].as_array().unwrap().iter().map(|preset| preset["name"].as_str().unwrap()).collect();
    assert!(names.iter().copied().eq(all()), "{names:?}");
    assert!(json["presets"][0]["about"].as_str().unwrap().starts_with("POST /api/v1/agent/"), "{json}");
}

#[test]
fn a_preset_is_printed_as_it_is() {
    for name in config::presets::names().chain(config::presets::sinks()) {
        let text = config::presets::text(name).unwrap();
        assert_eq!(presets(&format!("offramp presets {name}")), (0, text.to_owned()));
        let (_, json) = presets(&format!("offramp presets {name} --json"));
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((json["name"].as_str(), json["toml"].as_str()), (Some(name), Some(text)));
    }
    let (code, said) = presets("offramp presets openai-chta");
    assert_eq!(code, 2);
    assert!(
        said.starts_with("there is no preset \"openai-chta\"; did you mean \"openai-chat\"? the presets are: automagik, "),
        "{said}"
    );
}

#[tokio::test]
async fn commands_speak_with_the_running_offramp() {
    let dir = tempfile::tempdir().unwrap();
    let config = running(dir.path(), Some("s3cret")).await;
    let (code, status) = run("offramp status", &config).await;
    assert_eq!(code, 0);
    assert!(status.contains("graphiti  graphiti  running"), "{status}");
    assert_eq!(run("offramp episodes", &config).await, (0, "no episodes\n".into()));
    assert_eq!(run("offramp dead list", &config).await, (0, "no dead letters\n".into()));
    assert_eq!(
        run("offramp dead redrive --sink graphiti", &config).await,
        (0, "0 dead letters put back, each at its original place in its lane\n".into())
    );
    let (code, said) = run("offramp pause graphiti", &config).await;
    assert_eq!((code, said.starts_with("graphiti: paused")), (0, true));

    assert_eq!(
        run("offramp resume nosuch", &config).await,
        (2, "there is no sink \"nosuch\"; the sinks are: graphiti, log".into())
    );
    assert_eq!(run("offramp dead purge --sink nosuch --yes", &config).await.0, 2);
    let (code, said) = run("offramp show 01980000-0000-7000-8000-000000000001", &config).await;
    assert_eq!((code, said.starts_with("there is no episode 01980000")), (1, true));
}

#[tokio::test]
async fn inv10_a_refused_token_is_named_by_its_key_and_not_by_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = running(dir.path(), Some("s3cret")).await;
    config.admin.token = Some(Secret("wr0ng".into()));
    let (code, said) = run("offramp status", &config).await;
    assert_eq!(code, 1);
    assert!(said.contains("admin.token_file") && !said.contains("wr0ng") && !said.contains("s3cret"), "{said}");
    assert!(!format!("{:?}", client::Client::new(&config.admin)).contains("wr0ng"));
}

#[tokio::test]
async fn a_unix_socket_does_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let config = config(&dir.path().join("queue"), Listen::Unix(socket.clone()), None);
    serve(Listener::Unix { listener: UnixListener::bind(socket).unwrap(), file: None }, &config);
    assert_eq!(run("offramp episodes --state dead", &config).await, (0, "no episodes\n".into()));
}

#[tokio::test]
async fn without_a_running_offramp_the_queue_is_read_directly_in_the_same_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let here = running(&dir.path().join("a"), None).await;
    let offline = config(&dir.path().join("b"), nobody().await, None);
    drop(Queue::open(&offline.queue, &offline.sinks, &Metrics::new()).unwrap());
    std::fs::create_dir_all(&offline.queue.path).unwrap();

    for line in ["offramp episodes --json", "offramp dead list --json", "offramp dead purge --all --yes"] {
        assert_eq!(run(line, &offline).await, run(line, &here).await, "{line}");
    }
    let keys = |text: &str| {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        value.as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    let (code, status) = run("offramp status --json", &offline).await;
    assert_eq!(code, 0);
    assert_eq!(keys(&status), keys(&run("offramp status --json", &here).await.1));
}

#[tokio::test]
async fn verify_tells_what_is_in_a_queue_and_what_is_wrong_with_it_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let here = running(&dir.path().join("a"), None).await;
    let (code, said) = run("offramp verify", &here).await;
    assert_eq!(code, 1);
    assert!(said.contains(&format!("in use by process {}", std::process::id())), "{said}");

    let offline = config(&dir.path().join("b"), nobody().await, None);
    let (code, said) = run("offramp verify", &offline).await;
    assert_eq!(code, 1);
    assert!(said.contains("can't be used") && !offline.queue.path.exists(), "{said}");

    drop(Queue::open(&offline.queue, &offline.sinks, &Metrics::new()).unwrap());
    let (code, said) = run("offramp verify", &offline).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("0 records of 0 B, 0 unreadable, 0 for another offramp\nSINK "), "{said}");
    assert!(said.ends_with("all is in order\n"), "{said}");
    let (_, json) = run("offramp verify --json", &offline).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["sound"], &json["queue"]["records"]), (&true.into(), &0.into()));

    std::fs::remove_file(offline.queue.path.join("store/db")).unwrap();
    let (code, said) = run("offramp verify", &offline).await;
    assert_eq!((code, said), (1, format!("1 fault in {}", offline.queue.path.display())));
    let (code, json) = captured("offramp verify --json", &offline).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["damage"]["places"][0]), (1, &"the log is missing".into()));
    let (_, said) = captured("offramp verify", &offline).await;
    assert!(said.starts_with("fault: the log is missing\n") && said.contains("check the disk; `offramp run` sets"), "{said}");
    assert_eq!(
        run("offramp verify --write-off", &offline).await,
        (0, "0 missing episodes written off, counted as purged\n".into())
    );
    assert_eq!(run("offramp verify", &offline).await.0, 0, "it was empty, and is again");
}

#[tokio::test]
async fn what_cannot_be_reached_ends_with_3_and_names_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let missing = config(&dir.path().join("nothing"), nobody().await, None);
    let Listen::Tcp(address) = &missing.admin.listen else { unreachable!() };
    let (code, said) = run("offramp episodes", &missing).await;
    assert_eq!(code, 3);
    assert!(said.contains(address.as_str()) && said.contains("nothing"), "{said}");
    assert!(!missing.queue.path.exists(), "a question must not make a queue");

    assert_eq!(run("offramp pause graphiti", &missing).await.0, 3);
}

#[tokio::test]
async fn a_stranger_at_the_admin_address_is_not_taken_for_offramp() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(dir.path(), Listen::Tcp(listener.local_addr().unwrap().to_string()), None);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi").await;
        }
    });
    let (code, said) = run("offramp status", &config).await;
    assert_eq!(code, 1);
    assert!(said.contains("is not the admin API"), "{said}");
}

#[tokio::test]
async fn a_probe_is_told_step_by_step_and_its_failure_is_1() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), nobody().await, None);
    let Listen::Tcp(closed) = nobody().await else { unreachable!() };
    let text = format!(
        "[[proxy]]\nname = 'a'\nlisten = '127.0.0.1:1'\nupstream = 'http://h'\n[[sink]]\nname = 'log'\ntype = 'file'\npath = {:?}\n\
         [[sink]]\nname = 'graph'\ntype = 'graphiti'\nurl = 'http://{closed}'\n",
        dir.path().join("e.jsonl")
    );
    config.sinks = config::read(&text, Path::new("c.toml"), &config::Input::default()).unwrap().sinks;

    let (code, said) = captured("offramp sink test log", &config).await;
    assert_eq!(code, 0, "{said}");
    for line in [
        "log: file ",
        "  dns           -       a file needs none\n",
        "  delivery      ok      it is there, as the answer says\n",
        "  confirmation  ok      it was looked for, and is there\n",
        "the probe is episode ",
        "  found    in ",
        "  removed  take the line out while nothing writes\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }

    let (code, said) = captured("offramp sink test graph", &config).await;
    assert_eq!(code, 1);
    let failed = format!("  connect       FAILED  no connection to {closed}");
    assert!(said.contains(&failed) && said.contains("to do: see whether it runs") && !said.contains("the probe"), "{said}");
    let (code, said) = captured("offramp sink test graph --json", &config).await;
    let told: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &told["ok"], &told["episode"], told["steps"].as_array().unwrap().len()), (1, &false.into(), &().into(), 7));
    assert_eq!((&told["steps"][1]["step"], &told["steps"][1]["result"]), (&"connect".into(), &"failed".into()), "{told}");
    assert_eq!(run("offramp sink test graph", &config).await, (1, "sink graph: the test failed at connect".to_owned()));

    let (code, said) = run("offramp sink test nope", &config).await;
    assert_eq!((code, said.as_str()), (2, "there is no sink \"nope\"; the sinks are: log, graph"));
}
