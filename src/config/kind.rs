//! What a type of sink is called, and where one sends to.

use std::fmt;

use super::SinkKind;

impl SinkKind {
    /// `type` in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Graphiti(_) => "graphiti",
            Self::GraphitiMcp(_) => "graphiti-mcp",
            Self::Neo4j(_) => "neo4j",
            Self::Falkordb(_) => "falkordb",
            Self::Http(_) => "http",
            Self::Replay { .. } => "replay",
            Self::File { .. } => "file",
        }
    }
}

/// The type and the target, without anything that is a secret.
impl fmt::Display for SinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Graphiti(graphiti) => write!(f, "graphiti at {}", graphiti.url),
            Self::GraphitiMcp(mcp) => write!(f, "graphiti-mcp at {}", mcp.url),
            Self::Neo4j(neo4j) => write!(f, "neo4j at {}", neo4j.server),
            Self::Falkordb(falkordb) => write!(f, "falkordb at {}, graph {}", falkordb.server, falkordb.graph),
            Self::Http(service) => write!(f, "http to {}", service.url),
            Self::Replay { url } => write!(f, "replay to {url}"),
            Self::File { path, .. } => write!(f, "file {}", path.display()),
        }
    }
}
