//! The keys of `type = "falkordb"`.

use crate::config::graph::{ca_file, nowhere, server, word};
use crate::config::read::Section;
use crate::config::values::secret;
use crate::config::{Falkordb, ServerTrust};

const SCHEMES: [(&str, ServerTrust, ()); 2] = [("redis", ServerTrust::Plain, ()), ("rediss", ServerTrust::Verified, ())];

pub fn falkordb(s: &mut Section<'_>) -> Falkordb {
    let url = s.require("url", "\"redis://host:6379\"", |field| server(field, &SCHEMES, 6379));
    let server = url.map_or_else(nowhere, |(server, ())| server);
    Falkordb {
        ca_file: ca_file(s, &server),
        server,
        graph: s.get("graph", "offramp".to_owned(), word),
        user: s.maybe("user", word),
        password: s.get("password_file", None, secret),
        statement: s.maybe("statement", word),
    }
}
