//! The keys of `type = "neo4j"`.

use crate::config::graph::{ca_file, nowhere, server, word};
use crate::config::read::Section;
use crate::config::values::secret;
use crate::config::{Neo4j, ServerTrust};

/// Bolt by itself, and with the routing of a cluster; `+s` is TLS, and `+ssc` TLS with any certificate, as the drivers have it.
const SCHEMES: [(&str, ServerTrust, bool); 6] = [
    ("bolt", ServerTrust::Plain, false),
    ("bolt+s", ServerTrust::Verified, false),
    ("bolt+ssc", ServerTrust::Anyone, false),
    ("neo4j", ServerTrust::Plain, true),
    ("neo4j+s", ServerTrust::Verified, true),
    ("neo4j+ssc", ServerTrust::Anyone, true),
];

pub fn neo4j(s: &mut Section<'_>) -> Neo4j {
    let url = s.require("url", "\"bolt://host:7687\"", |field| server(field, &SCHEMES, 7687));
    let (server, routed) = url.unwrap_or((nowhere(), false));
    let ca_file = ca_file(s, &server);
    let user = s.get("user", String::new(), |field| field.text("a name"));
    let password = s.get("password_file", None, secret);
    if let (true, Some(at)) = (user.is_empty() && password.is_some(), s.place("password_file")) {
        s.cx().fault(at, "`password_file` is given, and nobody whose it is, allowed: a `user` beside it".to_owned());
    }
    Neo4j { server, routed, user, password, ca_file, database: s.maybe("database", word), statement: s.maybe("statement", word) }
}
