use proptest::prelude::*;

use super::*;
use crate::config::offload::{Kind, Split};
use crate::config::source::Source;
use crate::config::{Action, Durability, LogFormat, OrderBy, SinkKind, Upstream};

mod proxy;

const CONFIG: &str = include_str!("../../../config.toml");

const PROXY: &str = "[[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n";
const SINK: &str = "[[sink]]\nname = \"s\"\ntype = \"graphiti\"\nurl = \"http://h\"\n";
const ROUTE: &str = "[[proxy.route]]\nname = \"r\"\npath = \"/{agent}\"\n";

fn input(env: &[(&str, &str)], sets: &[&str]) -> Input {
    Input {
        env: env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        sets: sets.iter().map(|set| (*set).to_owned()).collect(),
        ..Input::default()
    }
}

fn read_with(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, Vec<String>> {
    super::read_with(text, Path::new("c.toml"), &input(env, sets), crate::tls::faults)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

fn faults(text: &str) -> Vec<String> {
    read_with(text, &[], &[]).err().unwrap_or_default()
}

#[test]
fn each_fault_is_told_at_its_place_with_what_is_allowed() {
    let cases = include_str!("faults.txt").split("\n\n").skip(1);
    let mut count = 0;
    for case in cases {
        let (expected, text): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("=> "));
        let text = text.join("\n") + "\n";
        let text = text.replace("@P\n", PROXY).replace("@S\n", SINK).replace("@R\n", ROUTE);
        let told: Vec<_> = faults(&text).iter().map(|fault| format!("=> {fault}")).collect();
        assert_eq!(told, expected, "of\n{text}");
        count += 1;
    }
    assert!(count >= 40, "{count} cases");
}

#[test]
fn ten_mistakes_are_ten_lines() {
    let text = r#"[[proxy]]
name = "agent"
listen = "127.0.0.1:8880"
upstream = "ftp://127.0.0.1:8881"
respons_timeout = "120s"
max_in_flight = "1000 requests"

  [[proxy.route]]
  name = "run"
  path = "/api/v1/agent/{agent}/run"
  preset = "automagic"
  sinks = ["graphity"]

[queue]
max_bytes = "4 gigs"
max_bytes = "4GiB"

[[sink]]
name = "graphiti"
type = "graphiti"
url = "127.0.0.1:8000"

[[sink]]
name = "graphiti"
type = "file"
path = "x"

[admin]
listen = "127.0.0.1:8880"
"#;
    let told = faults(text);
    let places = ["4:12", "5:1", "6:17", "11:12", "12:12", "15:13", "16:1", "21:7", "24:8", "29:10"];
    assert_eq!(told.len(), places.len(), "{}", told.join("\n"));
    for (fault, place) in told.iter().zip(places) {
        assert!(fault.starts_with(&format!("c.toml:{place}: ")), "{fault}");
        assert!(!fault.contains('\n'));
    }
}

/// A file with nothing but what must be given, for the same proxies, routes and sinks as `config.toml`.
const MINIMAL: &str = r#"
[[proxy]]
name = "agent"
listen = "127.0.0.1:8880"
upstream = "http://127.0.0.1:8881"
[[proxy.route]]
name = "run"
method = "POST"
path = "/api/v1/agent/{agent}/run"
preset = "automagik"
[[proxy.route]]
name = "chat"
method = "POST"
path = "/v1/chat/completions"
preset = "openai-chat"
[[sink]]
name = "graphiti"
type = "graphiti"
url = "http://127.0.0.1:8000"
"#;

#[test]
fn the_repositorys_file_states_every_key_with_its_default() {
    let mut asked = Vec::new();
    let (complete, told) = read_all(CONFIG, Path::new("config.toml"), &Input::default(), |cx, _| {
        asked = cx.asked.borrow().iter().cloned().collect();
    });
    assert_eq!(told, []);
    let minimal = read(MINIMAL, Path::new("c.toml"), &Input::default()).unwrap();
    assert_eq!(format!("{complete:#?}"), format!("{minimal:#?}"));

    // What the reader asks for, without what is planned, stands in the file: active, or as a comment where a value would be no default.
    let planned = ["[admin] ui", "[alert] url", "[telemetry] otlp_endpoint", "the file alert", "the file telemetry"];
    let stated = |key: &str| {
        let starts =
            |line: &str| line.trim_start_matches(['#', ' ']).strip_prefix(key).is_some_and(|l| l.trim_start().starts_with('='));
        CONFIG.lines().any(starts) || CONFIG.contains(&format!("{key} = ")) || CONFIG.contains(&format!("{key}]"))
    };
    let missing: Vec<_> = asked
        .iter()
        .filter(|asked| !planned.contains(&asked.as_str()))
        .filter(|asked| asked.rsplit_once(' ').is_none_or(|(_, key)| !stated(key)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn defaults_are_those_of_the_contract() {
    let config = read(MINIMAL, Path::new("c.toml"), &Input::default()).unwrap();
    let secs = std::time::Duration::from_secs;
    let (proxy, sink, queue) = (&config.proxies[0], &config.sinks[0], &config.queue);
    assert_eq!((proxy.max_in_flight, proxy.max_waiting, proxy.max_connections), (1000, 1000, 10_000));
    assert_eq!((proxy.connect_timeout, proxy.response_timeout, proxy.idle_timeout), (secs(10), secs(120), secs(300)));
    assert!(proxy.preserve_host && proxy.forwarded && !proxy.expose_episode_id);
    let route = &proxy.routes[0];
    assert_eq!((route.action, route.max_capture, route.record_cancelled), (Action::Capture, 1 << 20, true));
    assert_eq!(route.sinks, ["graphiti"]);
    assert!(route.success.contains(204) && !route.success.contains(304));
    assert_eq!((queue.path.to_str(), queue.durability), (Some("offramp-data"), Durability::Sync));
    assert_eq!((queue.max_episodes, queue.max_bytes, queue.min_free_disk), (1_000_000, 4 << 30, 256 << 20));
    assert_eq!((queue.keep_delivered, queue.keep_dead), (secs(86_400), secs(30 * 86_400)));
    assert_eq!((sink.workers, sink.order_by, sink.connect_timeout, sink.timeout), (5, OrderBy::Group, secs(2), secs(120)));
    assert_eq!(
        (sink.retry.max_attempts, sink.retry.initial, sink.retry.max, sink.retry.max_age),
        (10, secs(1), secs(300), secs(86_400))
    );
    assert!(
        sink.retry_on.connect
            && sink.retry_on.timeout
            && [408, 425, 429, 500, 599].iter().all(|s| sink.retry_on.status.contains(*s))
    );
    assert!([401, 403, 404].iter().all(|s| sink.pause_on.contains(*s)) && !sink.pause_on.contains(400));
    let SinkKind::Graphiti(graphiti) = &sink.kind else { panic!("{:?}", sink.kind) };
    assert!(graphiti.confirm.read_back);
    assert_eq!((graphiti.confirm.timeout, graphiti.confirm.poll), (secs(900), secs(1)));
    assert_eq!((config.admin.listen.to_string().as_str(), config.log.format), ("127.0.0.1:9911", LogFormat::Auto));
    let file = read_with(&format!("{PROXY}[[sink]]\nname = \"f\"\ntype = \"file\"\npath = \"x\""), &[], &[]).unwrap();
    assert_eq!(file.sinks[0].order_by, OrderBy::Session);
}

#[test]
fn set_wins_over_environment_over_file_over_default() {
    let text = format!("{PROXY}{SINK}[queue]\npath = \"file\"\nmax_episodes = 1\n");
    let env = [("OFFRAMP_QUEUE__PATH", "env"), ("OFFRAMP_QUEUE__MAX_EPISODES", "2"), ("OFFRAMP_QUEUE__ON_FULL", "reject")];
    let path = |config: Config| config.queue.path.display().to_string();
    assert_eq!(path(read_with(PROXY, &[], &[]).unwrap()), "offramp-data");
    assert_eq!(path(read_with(&text, &[], &[]).unwrap()), "file");
    let config = read_with(&text, &env, &[]).unwrap();
    assert_eq!((config.queue.max_episodes, config.queue.on_full), (2, crate::config::OnFull::Reject));
    assert_eq!(path(config), "env");
    assert_eq!(path(read_with(&text, &env, &["queue.path=first", "queue.path=last"]).unwrap()), "last");
}

#[test]
fn overlays_reach_every_table_by_name_or_index() {
    let text = format!("{SINK}{PROXY}{ROUTE}preset = \"automagik\"\n").replace("\"s\"", "\"my-Graph\"");
    let env = [
        ("OFFRAMP_SINK__MY_GRAPH__WORKERS", "3"),
        ("OFFRAMP_SINK__0__RETRY__MAX_ATTEMPTS", "4"),
        ("OFFRAMP_SINK__1__NAME", "archive"),
        ("OFFRAMP_SINK__1__TYPE", "file"),
        ("OFFRAMP_SINK__1__PATH", "2024-01-01"),
        ("OFFRAMP_PROXY__A__ROUTE__R__SINKS", "[\"archive\"]"),
        ("OFFRAMP_CONFIG", "ignored"),
        ("OFFRAMP_REVISION", "ignored"),
        ("OFFRAMP_SERVICE_HOST", "10.0.0.1"),
        ("OFFRAMP_PORT_8880_TCP_PORT", "8880"),
    ];
    let sets = ["proxy.a.upstream=127.0.0.1:1", "proxy.0.upstream=http://127.0.0.1:9", "proxy.a.route.r.sample=0.5"];
    let config = read_with(&text, &env, &sets).unwrap();
    assert_eq!((config.sinks[0].workers, config.sinks[0].retry.max_attempts), (3, 4));
    assert!(matches!(&config.sinks[1].kind, SinkKind::File { path, .. } if path == Path::new("2024-01-01")));
    assert!(matches!(&config.proxies[0].upstream, Upstream::Http { host, port: 9, .. } if host == "127.0.0.1"));
    assert_eq!(config.proxies[0].routes[0].sinks, ["archive"]);
    assert!((config.proxies[0].routes[0].sample - 0.5).abs() < f64::EPSILON);
}

#[test]
fn a_fault_of_an_overlay_names_the_overlay() {
    let env = [
        ("OFFRAMP_QUEUE__PATHH", "/x"),
        ("OFFRAMP_QUEUE_PATH", "/x"),
        ("OFFRAMP_SINK__NOPE__WORKERS", "3"),
        ("OFFRAMP_SINK__7__WORKERS", "3"),
        ("OFFRAMP_SINK__S__WORKERS", "three"),
    ];
    let sets = ["queue.max_bytes=lots", "nonsense", "a..b=1", "queue.path.x=1"];
    let text = format!("{PROXY}{SINK}[queue]\npath = \"q\"\n");
    assert_eq!(
        read_with(&text, &env, &sets).unwrap_err(),
        [
            "environment OFFRAMP_QUEUE_PATH: this is no key, two underscores separate levels: OFFRAMP_QUEUE__PATH",
            "environment OFFRAMP_QUEUE__PATHH: unknown key `pathh` in [queue], did you mean `path`?",
            "environment OFFRAMP_SINK__7__WORKERS: `sink` has no element 7, allowed: 0 to 1 (the last adds one)",
            r#"environment OFFRAMP_SINK__NOPE__WORKERS: no [[sink]] is named "nope", allowed: s"#,
            r#"environment OFFRAMP_SINK__S__WORKERS: `workers` is "three", allowed: an integer from 1 to 10000"#,
            "--set a..b: this is no key, allowed: a key such as queue.path, sink.graphiti.workers or proxy.agent.route.run.sample",
            "--set nonsense: it has no =, allowed: KEY=VALUE such as queue.path=/var/lib/offramp",
            r#"--set queue.max_bytes: `max_bytes` is "lots", allowed: a size such as 512KiB, 2GiB, 10MB or a number of bytes"#,
            r#"--set queue.path.x: `path` is "q", so there is nothing in it"#,
        ]
    );
}

#[test]
fn variables_stand_for_text_and_for_numbers() {
    let text = format!(
        "{PROXY}{SINK}workers = \"${{N:-7}}\"\nheaders = {{ authorization = \"Bearer ${{TOKEN}}\", x-none = \"${{NONE:-}}\" }}\n"
    );
    let config = read_with(&text, &[("TOKEN", "canary")], &[]).unwrap();
    assert_eq!(config.sinks[0].workers, 7);
    assert_eq!(config.sinks[0].headers.len(), 1);
    assert_eq!(config.sinks[0].headers[0].1, "Bearer canary");
    let shown = format!("{config:?}");
    assert!(!shown.contains("canary"), "inv 10: {shown}");
    assert_eq!(read_with(&text, &[("TOKEN", "x"), ("N", "9")], &[]).unwrap().sinks[0].workers, 9);
}

#[test]
fn inv10_no_fault_shows_a_secret() {
    let text = format!("{PROXY}{SINK}headers = {{ authorization = \"canary\\u0001${{T}}\", x-key = \"canary ${{NO}}\" }}\n");
    let told = read_with(&text, &[("T", "canary")], &[]).unwrap_err().join("\n");
    assert_eq!(told.lines().count(), 2);
    assert!(!told.contains("canary"), "{told}");
}

#[test]
fn a_routes_own_keys_win_over_its_preset() {
    let text = format!(
        "{SINK}{PROXY}{ROUTE}preset = \"automagik\"\nsuccess_if = []\n[proxy.route.extract]\nsession = \"req.header:x-session\"\ngroup = []\n\
         metadata = {{ channel = \"const:web\", more = [\"const:1\"] }}\n"
    );
    let config = read_with(&text, &[], &[]).unwrap();
    let route = &config.proxies[0].routes[0];
    let parse = |text: &str| Source::parse(text).unwrap();
    assert_eq!(route.success_if, []);
    assert_eq!(route.extract.session, [parse("req.header:x-session")]);
    assert_eq!(route.extract.input, [parse("req.json:$.message_content")]);
    assert_eq!(route.extract.user, [parse("resp.json:$.user_id"), parse("req.json:$.user_id")]);
    assert_eq!(route.extract.agent, [parse("req.path:agent")]);
    let channel = ("channel".to_owned(), vec![parse("const:web")]);
    assert_eq!(route.extract.metadata[..2], [channel, ("more".to_owned(), vec![parse("const:1")])]);
}

#[test]
fn a_preset_does_not_need_the_names_of_a_path() {
    let text = format!("{SINK}{PROXY}[[proxy.route]]\nname = \"r\"\npath = \"/run\"\npreset = \"automagik\"\n");
    let config = read_with(&text, &[], &[]).unwrap();
    let route = &config.proxies[0].routes[0];
    assert_eq!(route.extract.agent, []);
    assert_eq!(route.success_if, [Source::parse("resp.json:$.success").unwrap()]);
}

#[test]
fn every_preset_reads_without_fault_and_finds_both_sides() {
    for preset in crate::config::presets::names() {
        let text = format!("{SINK}{PROXY}{ROUTE}preset = \"{preset}\"\n");
        let config = read_with(&text, &[], &[]).unwrap();
        let route = &config.proxies[0].routes[0];
        let extract = &route.extract;
        assert!(crate::config::presets::about(preset).is_some_and(|about| about.ends_with('.')), "{preset}");
        if let Some(offload) = &route.offload {
            let lists = !matches!(offload.split, Split::Whole) && offload.message.content.is_some();
            assert!(lists || !extract.input.is_empty(), "{preset}");
            assert!(!extract.session.is_empty() && !offload.fields.is_empty(), "{preset}");
            continue;
        }
        let finds = [&extract.session, &extract.input, &extract.output].map(|sources| !sources.is_empty());
        // Of the two halves of a run, one has what was asked and the other what was answered.
        let expected = match preset {
            "automagik-async" => [true, true, false],
            "automagik-status" => [false, false, true],
            _ => [true; 3],
        };
        assert_eq!(finds, expected, "{preset}");
    }
}

#[test]
fn a_routes_own_offload_keys_win_over_its_preset() {
    let text = format!(
        "{SINK}[[sink]]\nname = \"again\"\ntype = \"replay\"\nurl = \"http://h/\"\n{PROXY}{ROUTE}preset = \"graphiti-messages\"\n\
         keep_headers = [\"Accept\"]\nreply = {{ body = \"{{id}}\" }}\n[proxy.route.offload]\nrefuse = \"problem\"\n"
    );
    let config = read_with(&text, &[], &[]).unwrap();
    let route = &config.proxies[0].routes[0];
    assert_eq!(
        (route.action, route.sinks.as_slice(), route.replays.as_slice()),
        (Action::Offload, &["s".into(), "again".into()][..], &["again".into()][..])
    );
    assert_eq!(route.keep_headers, ["accept"]);
    let offload = route.offload.as_ref().unwrap();
    assert_eq!((offload.reply.status.as_u16(), offload.reply.body.as_str()), (202, "{id}"));
    assert_eq!(offload.refuse, crate::config::offload::Refuse::Problem);
    let messages = &offload.fields[1];
    assert_eq!((messages.name.as_str(), messages.kind, messages.fields.len()), ("messages", Kind::Array, 7));
    assert!(matches!(&config.sinks[1].kind, SinkKind::Replay { url } if url == "http://h"));
}

#[test]
fn the_last_user_message_is_what_openai_chat_takes() {
    let config = read(CONFIG, Path::new("c.toml"), &Input::default()).unwrap();
    let Source::ReqJson(path) = &config.proxies[0].routes[1].extract.input[0] else { panic!() };
    let body = serde_json::json!({"messages": [
        {"role": "system", "content": "be brief"}, {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"},
    ]});
    assert_eq!(path.query(&body).all().last().and_then(|node| node.as_str()), Some("two"));
}

#[test]
fn the_token_makes_an_open_admin_address_allowed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "canary\n").unwrap();
    let text = format!("{PROXY}[admin]\nlisten = \"0.0.0.0:9911\"\ntoken_file = \"token\"\n");
    let config = read(&text, &dir.path().join("c.toml"), &Input::default()).unwrap();
    assert_eq!(config.admin.token.as_ref().map(|token| token.0.as_str()), Some("canary"));
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn the_file_is_looked_for_where_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let [named, in_env, usual] = ["named", "env", "usual"].map(|name| dir.path().join(name));
    let mut input = Input {
        path: Some(named.clone()),
        env: [("OFFRAMP_CONFIG".to_owned(), in_env.display().to_string())].into(),
        places: vec![dir.path().join("none"), usual.clone()],
        ..Input::default()
    };
    assert_eq!(input.locate(), Ok(named.clone()));
    let told = load(&input).unwrap_err().to_string();
    assert!(told.contains("named cannot be read (No such file"), "{told}");
    input.path = None;
    assert_eq!(input.locate(), Ok(in_env));
    input.env.clear();
    let told = input.locate().unwrap_err().to_string();
    assert!(told.contains("none and") && told.contains("usual") && told.contains("--config"), "{told}");
    std::fs::write(&usual, PROXY).unwrap();
    assert_eq!(load(&input).unwrap().proxies[0].name, "a");
    std::fs::write(&usual, b"[queue]\npath = \"\xff\"").unwrap();
    assert!(load(&input).unwrap_err().to_string().ends_with("usual:2:9: this is not UTF-8, allowed: a TOML file in UTF-8"));
}

#[test]
fn a_position_counts_characters_and_ignores_a_byte_order_mark() {
    assert_eq!(faults(&format!("\u{feff}é = 1\n{PROXY}"))[0].split(": ").next(), Some("c.toml:1:1"));
    assert_eq!(faults(&format!("{PROXY}fallback = {{ body = \"éé\", x = 1 }}\n"))[0].split(": ").next(), Some("c.toml:5:27"));
}

/// Replaces, removes and doubles pieces of the repository's file.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        ".{0,8}",
        proptest::sample::select(vec![
            "[",
            "]",
            "[[",
            "{",
            "}",
            "=",
            "\"",
            "'''",
            ",",
            ".",
            "#",
            "\n",
            "\0",
            "${",
            "${A",
            "é",
            "-1",
            "99999999999999999999",
            "nan",
            "1e999",
            "[]",
            "{}",
            "[[sink]]\n",
            "[queue]\n",
            "name = \"agent\"\n",
            "unix:",
            "[::1",
            "$[?@.a",
            "{*rest}",
            "1979-05-27",
            "true",
        ])
        .prop_map(str::to_owned),
    ];
    let edit = (0..CONFIG.len(), 0..40_usize, piece);
    proptest::collection::vec(edit, 1..12).prop_map(|edits| {
        let mut text = CONFIG.to_owned();
        for (at, length, piece) in edits {
            let start = floor(&text, at);
            let end = floor(&text, at + length).max(start);
            text.replace_range(start..end, &piece);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_reading_panic(text in prop_oneof![mutated(), "\\PC{0,200}", "(\\[|\\]|=|\"|a|\\.|\\{|\\}|\n|,|1){0,80}"]) {
        if let Err(faults) = read(&text, Path::new("c.toml"), &Input::default()) {
            for fault in &faults {
                prop_assert!(!fault.to_string().contains('\n'), "{fault}");
            }
        }
    }

    #[test]
    fn no_overlay_makes_reading_panic(key in "([a-z_]{1,8}|0|1|sink|proxy|route|graphiti|agent|run)(\\.([a-z_]{1,8}|0|sink|route|run|name)){0,14}", value in "\\PC{0,20}") {
        let set = format!("{key}={value}");
        let variable = format!("OFFRAMP_{}", key.replace('.', "__").to_uppercase());
        let _ = read_with(CONFIG, &[(&variable, &value)], &[&set]);
    }
}
