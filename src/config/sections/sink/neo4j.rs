//! The keys of `type = "neo4j"`.

use crate::config::graph::{nowhere, server};
use crate::config::read::Section;
use crate::config::values::{file, secret};
use crate::config::{Neo4j, ServerTrust};

use super::word;

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
    Neo4j {
        server,
        routed,
        user: s.get("user", String::new(), |field| field.text("a name")),
        password: s.get("password_file", None, secret),
        database: s.maybe("database", word),
        statement: s.maybe("statement", word),
        ca_file: s.maybe("ca_file", file),
    }
}
