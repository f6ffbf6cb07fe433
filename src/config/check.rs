//! The rules between keys: what no single value can be wrong about. Each is a sentence at the place where it is broken.

use super::address::{forwards_to, is_local, overlap};
use super::offload::Split;
use super::read::{Context, nearest};
use super::source::Source;
use super::units::show_duration;
use super::{Action, Config, Graphiti, GraphitiMcp, Listen, SinkKind, Upstream};

/// Tells what is wrong between the keys, and gives capturing routes without `sinks` every sink.
pub fn check(cx: &Context<'_>, config: &mut Config) {
    if config.proxies.is_empty() {
        cx.missing(cx.at(""), "there is no [[proxy]], allowed: at least one, with name, listen and upstream".to_owned());
    }
    names(cx, config);
    reserved(cx, config);
    listeners(cx, config);
    belongings(cx, config);
    sinks_of_routes(cx, config);
    offloads(cx, config);
    sinks(cx, config);
    if config.admin.token.is_none() && !is_local(&config.admin.listen) && !is_placeholder(&config.admin.listen) {
        let allowed = "allowed: 127.0.0.1, [::1] or unix:/path, or a `token_file`";
        cx.fault(
            cx.at("admin.listen"),
            format!("`listen` of [admin] is {}, which others can reach, {allowed}", config.admin.listen),
        );
    }
}

/// What stands where a listener couldn't be read.
fn is_placeholder(listen: &Listen) -> bool {
    matches!(listen, Listen::Tcp(address) if address.is_empty())
}

fn names(cx: &Context<'_>, config: &Config) {
    unique(cx, "[[proxy]]", "proxy", config.proxies.iter().map(|proxy| proxy.name.as_str()));
    unique(cx, "[[sink]]", "sink", config.sinks.iter().map(|sink| sink.name.as_str()));
    for (i, proxy) in config.proxies.iter().enumerate() {
        unique(
            cx,
            "[[proxy.route]] of this proxy",
            &format!("proxy.{i}.route"),
            proxy.routes.iter().map(|route| route.name.as_str()),
        );
    }
}

/// The name that the admin API's own episodes bear.
fn reserved(cx: &Context<'_>, config: &Config) {
    for (i, proxy) in config.proxies.iter().enumerate().filter(|(_, proxy)| proxy.name == "ingest") {
        let taken = "which episodes bear that come by the admin API";
        cx.fault(cx.at(&format!("proxy.{i}.name")), format!("`name` is {:?}, {taken}, allowed: another name", proxy.name));
    }
}

fn unique<'a>(cx: &Context<'_>, what: &str, path: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, name) in names.enumerate() {
        if let Some(first) = seen.iter().position(|other| *other == name && !name.is_empty()) {
            let first = cx.at(&format!("{path}.{first}.name"));
            cx.fault(
                cx.at(&format!("{path}.{i}.name")),
                format!("another {what} is named {name:?} already ({first}), allowed: a name of its own"),
            );
        }
        seen.push(name);
    }
}

fn listeners(cx: &Context<'_>, config: &Config) {
    let proxies =
        config.proxies.iter().enumerate().map(|(i, p)| (format!("proxy.{i}.listen"), format!("proxy {:?}", p.name), &p.listen));
    let all: Vec<_> = proxies.chain([("admin.listen".to_owned(), "[admin]".to_owned(), &config.admin.listen)]).collect();
    for (i, (path, _, listen)) in all.iter().enumerate() {
        if let Some((_, whose, other)) = all[..i].iter().find(|(_, _, other)| overlap(listen, other)) {
            let taken = if listen == other { String::new() } else { format!("overlaps with {other}, which ") };
            cx.fault(
                cx.at(path),
                format!("`listen` is {listen}, which {taken}is taken by {whose}, allowed: an address of its own"),
            );
        }
    }
    for (i, proxy) in config.proxies.iter().enumerate() {
        if forwards_to(&proxy.upstream, &proxy.listen) {
            let to = format!("`upstream` is {}, where this proxy itself listens", proxy.upstream);
            cx.fault(cx.at(&format!("proxy.{i}.upstream")), format!("{to}, allowed: the address of the agent"));
        }
    }
}

/// Keys that make sense only beside a certain value of another.
fn belongings(cx: &Context<'_>, config: &Config) {
    for (i, proxy) in config.proxies.iter().enumerate() {
        let given = |key: &str| Some(format!("proxy.{i}.{key}")).filter(|path| cx.is_given(path));
        if !matches!(proxy.listen, Listen::Unix(_)) && !is_placeholder(&proxy.listen) {
            for key in ["socket_mode", "socket_user", "socket_group"] {
                if let Some(path) = given(key) {
                    let owner = format!("`{key}` is of the file of a unix socket, and `listen` is {}", proxy.listen);
                    cx.fault(cx.at(&path), format!("{owner}, leave it out"));
                }
            }
        }
        // What stands where an upstream couldn't be read is the socket without a path.
        if !proxy.upstream.is_tls()
            && !matches!(&proxy.upstream, Upstream::Unix(path) if path.as_os_str().is_empty())
            && let Some(path) = given("upstream_tls")
        {
            let plain = format!("`upstream_tls` is for TLS, and `upstream` is {}", proxy.upstream);
            cx.fault(cx.at(&path), format!("{plain}, allowed: an upstream of https://, or no `upstream_tls`"));
        }
    }
}

fn sinks_of_routes(cx: &Context<'_>, config: &mut Config) {
    let known: Vec<String> = config.sinks.iter().map(|sink| sink.name.clone()).collect();
    let replaying: Vec<String> =
        config.sinks.iter().filter(|sink| matches!(sink.kind, SinkKind::Replay { .. })).map(|sink| sink.name.clone()).collect();
    // A sink whose name couldn't be read may be the one that is meant.
    let complete = known.iter().all(|name| !name.is_empty());
    for (p, proxy) in config.proxies.iter_mut().enumerate() {
        for (r, route) in proxy.routes.iter_mut().enumerate() {
            let path = format!("proxy.{p}.route.{r}");
            for (s, sink) in route.sinks.iter().enumerate() {
                let at = || cx.at(&format!("{path}.sinks.{s}"));
                if route.sinks[..s].contains(sink) {
                    cx.fault(at(), format!("`sinks` names {sink:?} twice, allowed: once"));
                } else if complete && !known.contains(sink) {
                    let names = known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
                    let hint = match nearest(sink, known.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean {near:?}? allowed: {names}"),
                        None if known.is_empty() => "there is no [[sink]] at all".to_owned(),
                        None => format!("allowed: {names}"),
                    };
                    cx.fault(at(), format!("`sinks` names {sink:?}, no [[sink]] has that name, {hint}"));
                }
            }
            if route.action != Action::Pass && route.sinks.is_empty() {
                if known.is_empty() {
                    let allowed = "allowed: at least one, or action = \"pass\"";
                    cx.missing(
                        cx.at(&path),
                        format!("route {:?} captures episodes, and there is no [[sink]] for them, {allowed}", route.name),
                    );
                }
                route.sinks.clone_from(&known);
            }
            route.replays = route.sinks.iter().filter(|name| replaying.contains(name)).cloned().collect();
        }
    }
}

/// A request that is offloaded has no response, and none may be lost.
fn offloads(cx: &Context<'_>, config: &Config) {
    for (p, proxy) in config.proxies.iter().enumerate() {
        for (r, route) in proxy.routes.iter().enumerate() {
            let path = format!("proxy.{p}.route.{r}");
            let Some(offload) = &route.offload else { continue };
            let extract = &route.extract;
            let silent = matches!(offload.split, Split::Whole) && extract.input.is_empty() && extract.output.is_empty();
            if silent && !route.sinks.iter().all(|sink| route.replays.contains(sink)) {
                let allowed =
                    "give it a preset, or offload.each, offload.all or extract.input, or sinks of type \"replay\" alone";
                cx.missing(cx.at(&path), format!("this [[proxy.route]] offloads nothing, {allowed}"));
            }
            for key in ["success", "success_if", "on_cancel", "stream", "join"] {
                let key_path = format!("{path}.{key}");
                if cx.is_given(&key_path) {
                    let none = "and an offloaded request has none";
                    cx.fault(cx.at(&key_path), format!("`{key}` is about a response, {none}, leave it out"));
                }
            }
            if route.sample < 1.0 {
                let lost = "an offloaded request that is left out would be lost";
                cx.fault(cx.at(&format!("{path}.sample")), format!("`sample` is {}, and {lost}, allowed: 1.0", route.sample));
            }
            let dedupe = route.dedupe.iter().map(|dedupe| ("dedupe.key".to_owned(), &dedupe.key));
            for (key, sources) in extract.lists().chain(dedupe) {
                let reads =
                    |source: &Source| matches!(source, Source::RespJson(_) | Source::RespHeader(_) | Source::RespStream(_));
                // What isn't written in the file is the preset's, and that one has a fault of its own then.
                let at = if key == "dedupe.key" { format!("{path}.{key}") } else { format!("{path}.extract.{key}") };
                if sources.iter().any(reads) && cx.is_given(&at) {
                    let none = "which an offloaded request doesn't have";
                    cx.fault(cx.at(&at), format!("`{key}` reads the response, {none}, allowed: sources of the request, req.…"));
                }
            }
        }
    }
}

fn sinks(cx: &Context<'_>, config: &Config) {
    for (i, sink) in config.sinks.iter().enumerate() {
        let path = format!("sink.{i}");
        let retry = sink.retry;
        if retry.initial > retry.max {
            let (initial, max) = (show_duration(retry.initial), show_duration(retry.max));
            let at = nearer(cx, &format!("{path}.retry.initial"), &format!("{path}.retry.max"));
            cx.fault(at, format!("`retry.initial` is {initial}, longer than `retry.max`, allowed: at most {max}"));
        }
        match &sink.kind {
            SinkKind::Graphiti(Graphiti { confirm, .. }) | SinkKind::GraphitiMcp(GraphitiMcp { confirm, .. })
                if confirm.poll > confirm.timeout =>
            {
                let (poll, timeout) = (show_duration(confirm.poll), show_duration(confirm.timeout));
                let at = nearer(cx, &format!("{path}.confirm.poll"), &format!("{path}.confirm.timeout"));
                cx.fault(at, format!("`confirm.poll` is {poll}, longer than `confirm.timeout`, allowed: at most {timeout}"));
            }
            SinkKind::File { path: file, .. } if !file.as_os_str().is_empty() => {
                let writes = |kind: &SinkKind| matches!(kind, SinkKind::File { path, .. } if path == file);
                if let Some(other) = config.sinks[..i].iter().find(|other| writes(&other.kind)) {
                    let shared = format!("`path` is {}, which sink {:?} writes to", file.display(), other.name);
                    cx.fault(cx.at(&format!("{path}.path")), format!("{shared}, allowed: a file of its own"));
                }
            }
            _ => {}
        }
    }
}

/// The place of the key that was given; of the first, if both were.
fn nearer(cx: &Context<'_>, first: &str, second: &str) -> super::fault::Origin {
    if cx.is_given(first) || !cx.is_given(second) { cx.at(first) } else { cx.at(second) }
}
