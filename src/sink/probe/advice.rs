//! What to do about a step that failed, and where a probe is found that was sent.

use std::path::PathBuf;

use super::What;
use crate::config::{self, Falkordb, Graphiti, GraphitiMcp, Neo4j, SinkKind};
use crate::sink::graphiti::group_id;
use crate::sink::graphiti_mcp;
use crate::sink::{Cause, Delivery, Receipt, SinkError};

pub const NAME: &str =
    "mend the host in `url`, or make the name known where offramp runs: in a container it is often that of a service";

pub const LATE: &str =
    "see whether the backend is busy or hangs, or give it longer with --timeout; the probe may be there all the same";

pub const REMARKED: &str =
    "what is missing keeps nothing from being delivered: give the user the right to make it, or make it yourself";

pub const UNMADE: &str = "see what the backend's own log says of it: it is often its language model";

pub const NOT_SHOWN: &str =
    "not seen yet; an answer of success is taken for a delivery here, and only what is in doubt is looked for";

/// Why nothing may be seen of what was sent.
pub fn unseen(kind: &SinkKind) -> &'static str {
    match kind {
        SinkKind::Graphiti(_) => {
            "either it works slowly, so give it longer with --timeout, or its worker is dead: then it answers and stores nothing until it is \
             restarted. Its log tells"
        }
        SinkKind::GraphitiMcp(_) => {
            "either it works slowly, so give it longer with --timeout, or it has lost it, as its log then tells"
        }
        SinkKind::Http(_) => "give it longer with --timeout; if it is there, `confirm` looks for it in the wrong place",
        _ => "see whether somebody removes what is written, or whether it is read from another place than it is written to",
    }
}

/// What was sent can't be looked for.
pub fn unaskable(kind: &SinkKind) -> &'static str {
    match kind {
        SinkKind::GraphitiMcp(_) => "see what the server's log says of the probe; if it is stored, do as is said above",
        _ => "give the credentials the right to read as well, or mend `confirm`; without it nothing is proved",
    }
}

/// What is known of the delivery once something was taken.
pub fn delivered(kind: &SinkKind, receipt: Receipt) -> &'static str {
    match receipt {
        Receipt::Accepted => "it was accepted, which is a promise",
        Receipt::Delivered if is_taken_at_its_word(kind) => "it was accepted, which is a promise, and taken for the delivery",
        Receipt::Delivered => "it is there, as the answer says",
    }
}

/// Why the sink can't say whether it is there.
pub fn unknown(kind: &SinkKind) -> &'static str {
    if is_taken_at_its_word(kind) {
        return "not looked for, because confirm.mode is \"accepted\": nothing proves that it is there";
    }
    "this sink cannot be asked what it has: its answer is the proof"
}

/// Whether a promise is all that is asked for.
fn is_taken_at_its_word(kind: &SinkKind) -> bool {
    match kind {
        SinkKind::Graphiti(Graphiti { confirm, .. }) | SinkKind::GraphitiMcp(GraphitiMcp { confirm, .. }) => !confirm.read_back,
        _ => false,
    }
}

/// Nobody took the connection.
pub fn connect(host: &str) -> String {
    let own = matches!(host, "localhost" | "127.0.0.1" | "::1");
    let hint = if own { "; in a container this is the container itself" } else { "" };
    format!("see whether it runs, listens there and not on another port, and whether a firewall is between{hint}")
}

/// TLS did not come about.
pub fn tls(ca_file: Option<PathBuf>, port: u16) -> String {
    let trusted = ca_file.map_or_else(
        || "an authority that the system trusts has to vouch for its certificate".to_owned(),
        |file| format!("{} has to have the authority that vouches for its certificate", file.display()),
    );
    format!("{trusted}, the certificate has to be for the host in `url`, and TLS has to be what is spoken on port {port}")
}

/// Whom the backend doesn't let in.
pub fn credentials(config: &config::Sink) -> String {
    match &config.kind {
        SinkKind::Neo4j(_) | SinkKind::Falkordb(_) => {
            "mend `user` and `password_file`; the user has to be allowed to write".to_owned()
        }
        SinkKind::File { .. } => "give the user that offramp runs as the right to write there".to_owned(),
        _ if config.headers.is_empty() => {
            "give what the service asks for, such as headers = { authorization = \"Bearer ${TOKEN}\" }".to_owned()
        }
        _ => {
            let names: Vec<&str> = config.headers.iter().map(|(name, _)| name.as_str()).collect();
            format!("mend what `headers` says for it: {} is sent", names.join(", "))
        }
    }
}

/// What is known of the credentials once something was taken.
pub fn let_in(config: &config::Sink) -> &'static str {
    let shown = match &config.kind {
        SinkKind::Neo4j(neo4j) => !neo4j.user.is_empty() || neo4j.password.is_some(),
        SinkKind::Falkordb(falkordb) => falkordb.password.is_some(),
        SinkKind::File { .. } => return "the file may be written",
        _ => !config.headers.is_empty(),
    };
    if shown { "it lets offramp in" } else { "it lets offramp in without any" }
}

/// What is known of the schema once something was taken.
pub fn understood(kind: &SinkKind) -> &'static str {
    match kind {
        SinkKind::Neo4j(Neo4j { statement: None, .. }) | SinkKind::Falkordb(Falkordb { statement: None, .. }) => {
            "the default statement is understood, and the ids of sessions and episodes are kept unique"
        }
        SinkKind::Neo4j(_) | SinkKind::Falkordb(_) => "your statement is understood",
        SinkKind::Http(_) => "the templates fit an episode, and the service takes what they make",
        SinkKind::File { .. } => "lines are of version 1",
        SinkKind::GraphitiMcp(_) => "the server has the tools, and they take what they are given",
        SinkKind::Graphiti(_) | SinkKind::Replay { .. } => "the service takes the form of the message",
    }
}

/// Which step it was that failed, and what to do.
pub fn of(config: &config::Sink, error: &SinkError) -> (What, String) {
    let say = |step, text: &str| (step, text.to_owned());
    match (error.cause, &config.kind) {
        (Cause::Status(401 | 403), _) => (What::Credentials, credentials(config)),
        (Cause::Status(300..=399), _) => {
            say(What::Schema, "put the address that it points to into `url`: offramp follows nobody")
        }
        (Cause::Status(404), SinkKind::Neo4j(_)) => say(What::Schema, "mend `statement`, or `database`, whichever it names"),
        (Cause::Status(404), SinkKind::Falkordb(_)) => {
            say(What::Schema, "mend `statement`, or `graph`; a server without GRAPH.QUERY is a Redis without FalkorDB")
        }
        (Cause::Status(404), SinkKind::Graphiti(_)) => say(
            What::Schema,
            "`url` is the base of Graphiti's REST service, under which /messages is; for its MCP server there is the type \"graphiti-mcp\"",
        ),
        (Cause::Status(404), SinkKind::GraphitiMcp(_)) => say(
            What::Schema,
            "`url` is what the clients of Graphiti's MCP server connect to, /mcp included; the server must be of Graphiti v0.29.2 or later",
        ),
        (Cause::Status(404), _) => say(
            What::Schema,
            "mend `url` and `path`; where they name a thread, a user or an agent, give one that is there with --session, --user or --agent",
        ),
        (Cause::Status(408 | 425 | 429 | 500..=599), _) => {
            say(What::Delivery, "offramp would try it again; if it stays so, the backend's own log tells more")
        }
        (Cause::Status(_), SinkKind::Neo4j(_) | SinkKind::Falkordb(_)) => say(
            What::Schema,
            "mend `statement`: it is understood, and fails on the episode. Such an episode becomes a dead letter",
        ),
        (Cause::Status(_), _) => say(
            What::Schema,
            "what is sent is not what the service expects: mend `url`, its version, or the templates. Such an episode becomes a dead letter",
        ),
        (Cause::Unfit, _) => say(
            What::Schema,
            "the template asks for what not every episode has: give it a default there, as in {{ user or session }}, or a name here with \
             --session, --user or --agent",
        ),
        (Cause::Local, _) => say(
            What::Delivery,
            "the directory has to be there, the user that offramp runs as has to be allowed to write in it, and the disk must not be full",
        ),
        (Cause::Connect, _) => {
            say(What::Delivery, "it takes connections and does not speak as expected: another service may be listening there")
        }
        (Cause::Timeout, _) => say(What::Delivery, LATE),
    }
}

/// Where a probe is found, and what removes it.
pub fn whereabouts(config: &config::Sink, delivery: &Delivery) -> (Option<String>, Option<String>) {
    let episode = &delivery.episode;
    let (id, session) = (episode.id, &episode.session);
    let cypher = |place: String, own: bool| {
        if own {
            let found = format!("where your statement writes it {place}, by its id {id}");
            return (found, "whatever undoes your statement".to_owned());
        }
        let found = format!("MATCH (e:Episode {{id: \"{id}\"}}) RETURN e, {place}");
        (found, format!("MATCH (e:Episode {{id: \"{id}\"}}) DETACH DELETE e"))
    };
    let (found, remove) = match &config.kind {
        SinkKind::Graphiti(Graphiti { url, .. }) => {
            let group = group_id(episode.group());
            let found = format!("GET {url}/episodes/{group}?last_n=10, by its name {id}");
            let whole = format!("DELETE {url}/group/{group}, which removes the whole group");
            // A group of somebody else's is not to be removed for a probe.
            let remove =
                if session == super::NAME { whole } else { format!("DELETE {url}/episode/UUID, by the uuid that it has there") };
            (found, remove)
        }
        SinkKind::GraphitiMcp(_) => {
            let group = graphiti_mcp::group(episode.group());
            let found = format!(
                "in the group {group}, by its name {id}: get_episodes, or MATCH (e:Episodic {{name: \"{id}\"}}) RETURN e"
            );
            let whole = format!("clear_graph of the group {group}, which removes the whole group");
            let remove = if session == super::NAME { whole } else { "delete_episode of the uuid that it has there".to_owned() };
            (found, remove)
        }
        SinkKind::Neo4j(Neo4j { database, statement, .. }) => {
            let place =
                database.as_ref().map_or_else(|| "in the user's database".to_owned(), |name| format!("in the database {name}"));
            cypher(place, statement.is_some())
        }
        SinkKind::Falkordb(Falkordb { graph, statement, .. }) => cypher(format!("in the graph {graph}"), statement.is_some()),
        SinkKind::Http(service) => (
            format!("at {}, as the templates write it: session {session}, id {id}", service.url),
            "whatever the service has for removing what it was given".to_owned(),
        ),
        SinkKind::File { path, .. } => (
            format!("in {}, the line that begins with {{\"id\":\"{id}\"", path.display()),
            "take the line out while nothing writes".to_owned(),
        ),
        SinkKind::Replay { .. } => return (None, None),
    };
    (Some(found), Some(remove))
}
