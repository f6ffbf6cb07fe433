//! A child process that reports on one of its streams, keeps a log, and never outlives the test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::wait_until;

/// Generous: it only matters when something is broken.
pub const START_LIMIT: Duration = Duration::from_secs(60);

/// So long a program may take to end by itself before it is killed.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Where a process says that it is ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reports {
    /// On standard output; standard error is its log.
    Stdout,
    /// On standard error, which is its log as well.
    Stderr,
}

/// A running child; killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it with an open standard input (which closes when the test ends, however it ends) and the log `DIR/NAME.log`, to which a
    /// second process of that name appends.
    pub fn start(name: &str, mut command: Command, reports: Reports, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let mut file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match reports {
            Reports::Stdout => command.stderr(file.try_clone().unwrap()),
            Reports::Stderr => command.stdout(file.try_clone().unwrap()),
        };
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", command.get_program().display()));
        let stream: Box<dyn Read + Send> = match reports {
            Reports::Stdout => Box::new(child.stdout.take().unwrap()),
            Reports::Stderr => Box::new(child.stderr.take().unwrap()),
        };
        let (sender, lines) = channel();
        // Reads to the end, whether anybody listens or not: a full pipe would stop the child.
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if reports == Reports::Stderr {
                    let _ = writeln!(file, "{line}");
                }
                let _ = sender.send(line);
            }
        });
        Self { name: name.to_owned(), child, log, lines }
    }

    /// Waits for the line that `pick` recognises.
    pub fn wait_for<T>(&mut self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = pick(&line) {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("{} did not say {what}; its log:\n{}", self.name, self.log_tail()),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().unwrap();
                    panic!("{} ended ({status}) and did not say {what}; its log:\n{}", self.name, self.log_tail())
                }
            }
        }
    }

    /// What it says from now on to its end.
    pub fn rest(&mut self) -> String {
        self.lines.iter().collect::<Vec<_>>().join("\n")
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        // Fails only where it ended before, which is what is wanted.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Closes its standard input, which ends a program that watches it, and kills it if it takes its time.
    pub fn end(&mut self) {
        drop(self.child.stdin.take());
        wait_until(END_LIMIT, || !self.is_running());
        self.kill();
    }

    /// SIGTERM, and waits for its end.
    pub fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(limit)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        // The shell's own kill: the standard library sends SIGKILL alone.
        let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{} was gone before SIG{name}; its log:\n{}", self.name, self.log_tail());
    }

    /// Waits for its end, which something else brings about.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let mut ended = None;
        let in_time = wait_until(limit, || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert!(in_time, "{} did not end within {limit:?}; its log:\n{}", self.name, self.log_tail());
        ended.unwrap()
    }

    /// The whole log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of the log, for a failure's message.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
