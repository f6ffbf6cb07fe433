//! The least that a durable queue has to do: a bare append log. One thread writes what has gathered, calls fdatasync once, and answers.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

/// A log that any number of tasks append to.
pub struct Log {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    answers: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Log {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        let shared = Arc::new(Shared::default());
        let work = shared.clone();
        let writer = std::thread::Builder::new().name("log-writer".to_owned()).spawn(move || work.write(file))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Resolves once the record is on stable storage; with an error if it never will be.
    pub fn append(&self, record: &[u8]) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.bytes.extend_from_slice(record);
            waiting.answers.push(answer);
        }
        self.shared.wake.notify_one();
        answered
    }

    /// Ends the writer.
    pub fn close(mut self) -> io::Result<()> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_one();
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the log's writer panicked")),
        }
    }
}

impl Shared {
    fn write(&self, mut file: File) -> io::Result<()> {
        loop {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = self.wake.wait_while(waiting, |w| w.answers.is_empty() && !w.closed);
            let taken = std::mem::take(&mut *idle.unwrap_or_else(PoisonError::into_inner));
            if taken.answers.is_empty() {
                return Ok(());
            }
            file.write_all(&taken.bytes)?;
            file.sync_data()?;
            for answer in taken.answers {
                let _ = answer.send(()); // who no longer waits needs no answer
            }
            if taken.closed {
                return Ok(());
            }
        }
    }
}

/// Microseconds that each of `count` single fdatasyncs of 4 KB appended took.
pub fn syncs(path: &Path, count: usize) -> io::Result<Vec<f64>> {
    let mut file = OpenOptions::new().append(true).create_new(true).open(path)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        file.write_all(&[7; 4096])?;
        let before = Instant::now();
        file.sync_data()?;
        times.push(before.elapsed().as_secs_f64() * 1e6);
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(times)
}
