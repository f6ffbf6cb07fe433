//! What offramp has from the service manager, and what it tells it.
//!
//! It takes the sockets that it is to listen on (socket activation), and says: ready, stopping, still alive. Without
//! `$NOTIFY_SOCKET` nothing is sent, and nothing fails.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;

/// The sockets that were passed and nobody has taken yet, by name. Asked for once: the descriptors would have two owners.
static PASSED: LazyLock<Mutex<Vec<(String, OwnedFd)>>> = LazyLock::new(|| {
    let passed = sd_listen_fds::get().unwrap_or_else(|error| {
        tracing::warn!(%error, "the sockets of the service manager cannot be taken");
        Vec::new()
    });
    // What systemd itself calls a socket without a name.
    let named = |(name, socket): (Option<String>, sd_listen_fds::OwnedFd)| {
        (name.unwrap_or_else(|| "unknown".to_owned()), socket.into_std())
    };
    Mutex::new(passed.into_iter().map(named).collect())
});

/// Takes the socket of this name (`FileDescriptorName=` of the socket unit). The error names those that were passed.
pub fn socket(name: &str) -> io::Result<OwnedFd> {
    take(&mut PASSED.lock().unwrap_or_else(PoisonError::into_inner), name)
        .map_err(|message| io::Error::new(io::ErrorKind::NotFound, message))
}

fn take<T>(passed: &mut Vec<(String, T)>, name: &str) -> Result<T, String> {
    let names: Vec<_> = passed.iter().map(|(name, _)| format!("{name:?}")).collect();
    let found: Vec<_> = (0..passed.len()).filter(|i| passed[*i].0 == name).collect();
    match found[..] {
        [one] => Ok(passed.swap_remove(one).1),
        [] if names.is_empty() => {
            Err("the service manager has passed no socket that is free; a socket unit must start this service".to_owned())
        }
        [] => Err(format!("the service manager has passed no socket of this name, allowed: {}", names.join(" or "))),
        _ => Err(format!(
            "{} sockets have this name, allowed: one (a socket unit for each, with a FileDescriptorName of its own)",
            found.len()
        )),
    }
}

/// Startup is done: every listener accepts and the queue is open. `status` is what `systemctl status` shows.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again, until [`ready`] says that this is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager could not be told"),
    }
}

/// Shutdown has begun.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Time between two signs of life: half of what `WatchdogSec` allows; none where the service manager expects no signs.
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|longest| longest / 2).filter(|interval| !interval.is_zero())
}

/// Gives a sign of life at each interval, for ever; returns at once where none is expected. It is to run as a task of the runtime
/// that serves: a runtime that hangs gives no sign. Cancel safe.
pub async fn watchdog() {
    if let Some(interval) = watchdog_interval() {
        give_signs(interval, || tell(&[NotifyState::Watchdog])).await;
    }
}

async fn give_signs(interval: Duration, mut sign: impl FnMut()) {
    let mut ticks = tokio::time::interval(interval);
    // After a pause one sign is enough: several at once prove no more.
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sign();
    }
}

/// A service manager that doesn't listen is no reason to stop serving.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_comes_at_each_interval() {
        let signs = Cell::new(0);
        let three_and_a_half = Duration::from_millis(3_500);
        let task = give_signs(Duration::from_secs(1), || signs.set(signs.get() + 1));
        assert!(tokio::time::timeout(three_and_a_half, task).await.is_err());
        // At 0, 1, 2 and 3 seconds.
        assert_eq!(signs.get(), 4);
    }

    /// The environment belongs to the process, so the socket is tried in a process of its own: this test, started again.
    #[test]
    fn what_is_told_reaches_the_socket_and_nothing_is_told_without_one() {
        const INNER: &str = "OFFRAMP_TEST_NOTIFY";
        if std::env::var_os(INNER).is_some() {
            assert_eq!(watchdog_interval(), Some(Duration::from_secs(15)));
            ready("serving");
            reloading();
            stopping();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        let name = "systemd::tests::what_is_told_reaches_the_socket_and_nothing_is_told_without_one";
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(INNER, "1")
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "30000000")
            .env_remove("WATCHDOG_PID")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 256];
        let mut received = || {
            let length = socket.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(received(), "READY=1\nSTATUS=serving\n");
        let told = received();
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&told).trim_end();
        assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{told}");
        assert_eq!(received(), "STOPPING=1\n");

        let mut quiet = std::process::Command::new(std::env::current_exe().unwrap());
        quiet
            .args(["--exact", "systemd::tests::nothing_fails_without_a_service_manager"])
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC");
        assert!(quiet.stdout(std::process::Stdio::null()).status().unwrap().success());
    }

    #[test]
    fn nothing_fails_without_a_service_manager() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            ready("serving");
            stopping();
        }
        if std::env::var_os("WATCHDOG_USEC").is_none() {
            assert_eq!(watchdog_interval(), None);
        }
    }
}
