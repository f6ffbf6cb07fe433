//! The integration tests: each module drives the real binary, or the library, from outside.

mod cli;
mod cypher;
mod damage;
mod export;
mod faults;
mod full;
mod graphiti_mcp;
mod idle;
mod kill9;
mod lightrag;
mod limits;
mod offload;
mod operators;
mod outage;
mod power;
mod presets;
mod real_graphiti;
mod reload;
mod road;
mod secrets;
mod stalled;
mod stop;
mod support;
mod tls;
mod transparent;
mod writes;
