//! The offramp of the demo: its configuration, which is an ordinary one, and the directory of its queue.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use super::{DemoError, Options};
use crate::config::{self, Config};

/// The name of the proxy, to find its address by.
pub(super) const PROXY: &str = "agent";

/// The configuration's text: what somebody would write who puts offramp before such an agent, with room for the load.
pub(super) fn config_text(options: &Options, agent: SocketAddr, sink_url: &str, queue: &Path) -> Result<String, DemoError> {
    let queue = queue.to_str().ok_or_else(|| DemoError::QueuePathNotText(queue.to_owned()))?;
    let room = options.concurrency.max(1000);
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write!(
        text,
        r#"
[[proxy]]
name = "{PROXY}"
listen = "127.0.0.1:0"
upstream = "http://{agent}"
max_in_flight = {room}
max_connections = {connections}
drain_timeout = "5s"

  [[proxy.route]]
  name = "run"
  method = "POST"
  path = "/api/v1/agent/{{agent}}/run"
  action = "capture"
  preset = "automagik"

[queue]
path = {queue}
durability = "sync"
max_episodes = {episodes}
min_free_disk = "64MiB"

[[sink]]
name = "graphiti"
type = "graphiti"
url = {url}
workers = {workers}
order_by = "group"
confirm = {{ mode = "read_back", timeout = "15m", poll = "{poll}ms" }}

[admin]
listen = "127.0.0.1:0"
"#,
        connections = room * 2,
        queue = quoted(queue),
        episodes = options.requests.saturating_mul(2).clamp(10_000, i64::MAX.unsigned_abs()),
        url = quoted(sink_url.trim_end_matches('/')),
        workers = options.workers,
        poll = poll(options.write_delay).as_millis(),
    );
    Ok(text)
}

/// The configuration, read and checked as `run` does it.
pub(super) fn config(text: &str) -> Result<Config, DemoError> {
    let input = config::Input::default(); // the demo is not what the environment configures
    config::read(text, Path::new("the demo's configuration"), &input).map_err(|faults| DemoError::Config(faults.to_string()))
}

/// Often enough that the last look costs a lane little of its time, seldom enough that a hundred lanes don't keep the service busy.
fn poll(write_delay: Duration) -> Duration {
    (write_delay / 10).clamp(Duration::from_millis(20), Duration::from_millis(500))
}

/// A basic string of TOML. JSON's escapes are a subset of its own.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The directory of the queue.
#[derive(Debug)]
pub(super) struct QueueDir {
    path: PathBuf,
    temporary: bool,
}

impl QueueDir {
    /// `path`, which must be empty or absent and is left where it is; without one a temporary directory that goes when this is dropped.
    pub(super) fn new(path: Option<&Path>) -> Result<Self, DemoError> {
        let directory = match path {
            Some(path) => Self { path: path.to_owned(), temporary: false },
            None => Self { path: std::env::temp_dir().join(format!("offramp-demo-{}", Uuid::now_v7())), temporary: true },
        };
        let fault = |source| DemoError::QueueDir { path: directory.path.clone(), source };
        // What was said stands in there: for nobody else's eyes.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory.path).map_err(fault)?;
        if fs::read_dir(&directory.path).map_err(fault)?.next().is_some() {
            return Err(DemoError::QueueDirNotEmpty(directory.path.clone()));
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for QueueDir {
    fn drop(&mut self) {
        if self.temporary {
            // Nobody is left to tell; the system clears its temporary directory.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temporary_directory_goes_and_a_given_one_stays() {
        let temporary = QueueDir::new(None).unwrap();
        let path = temporary.path().to_owned();
        assert!(path.is_dir());
        fs::write(path.join("db"), "x").unwrap();
        drop(temporary);
        assert!(!path.exists());

        let outside = tempfile::tempdir().unwrap();
        let given = outside.path().join("queue");
        drop(QueueDir::new(Some(&given)).unwrap());
        assert!(given.is_dir());
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("db"), "somebody's queue").unwrap();
        let error = QueueDir::new(Some(outside.path())).unwrap_err();
        assert!(matches!(error, DemoError::QueueDirNotEmpty(_)), "{error}");
        assert!(outside.path().join("db").exists());
    }

    #[test]
    fn awkward_paths_and_urls_are_quoted() {
        let options = Options::default();
        let text = config_text(&options, ([127, 0, 0, 1], 9).into(), "http://g:1/\"x/", Path::new("/tmp/a \"b\\c")).unwrap();
        assert!(text.contains(r#"path = "/tmp/a \"b\\c""#), "{text}");
        assert!(text.contains(r#"url = "http://g:1/\"x""#), "{text}");
        assert!(text.contains(r#"path = "/api/v1/agent/{agent}/run""#), "{text}");
    }

    #[test]
    fn looks_ten_times_per_write_within_reason() {
        let millis = |ms| poll(Duration::from_millis(ms)).as_millis();
        assert_eq!([millis(0), millis(2_000), millis(13_000)], [20, 200, 500]);
    }
}
