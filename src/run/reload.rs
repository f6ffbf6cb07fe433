//! Another configuration for an offramp that runs.
//!
//! First everything is made that can fail: the certificates, the sinks, their names in the queue. If one of these can't be, nothing has
//! changed. Then each part gets its own, in the order in which episodes flow: a route that has a new sink finds it drained to. What is bound
//! to a listener, a directory or a stream that is open needs a restart: it is named in the log, and left as it was.

use std::sync::Arc;

use super::certificates::Certificates;
use super::{Offramp, StartError, known_sinks, settings};
use crate::config::{Admin, Config, Log, Proxy, Queue};
use crate::queue::AppendError;
use crate::server::Serving;
use crate::sink::SetupError;

/// Why another configuration could not be had. All is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A sink.
    #[error(transparent)]
    Sink(#[from] SetupError),
    /// The queue can't write down that there is another sink.
    #[error("the queue does not take the new sink {name}: {source}")]
    Queue {
        /// The sink.
        name: String,
        /// The queue's error.
        source: AppendError,
    },
    /// A certificate.
    #[error(transparent)]
    Tls(StartError),
    /// The thread that read the certificates.
    #[error("reading the certificates panicked")]
    Panicked,
}

impl Offramp {
    /// Goes by another configuration from now on: requests and attempts that begin do, those under way end as they began. No connection is
    /// closed for it. Dropping the future may leave the former one in force, or a part of it.
    pub async fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let mut live = self.live.lock().await;
        let Combined { config, gone, kept } = combined(&live.config, config);
        let pairs: Vec<_> = live.proxies.iter().map(|p| p.certificates.clone()).zip(config.proxies.clone()).collect();
        let renewing = move || pairs.iter().map(|(former, proxy)| former.renew(proxy)).collect::<Result<Vec<_>, _>>();
        let certificates = tokio::task::spawn_blocking(renewing).await.map_err(|_| ReloadError::Panicked)?;
        let certificates = certificates.map_err(ReloadError::Tls)?;
        for sink in &config.sinks {
            let named = self.queue.add_sink(&sink.name).await;
            named.map_err(|source| ReloadError::Queue { name: sink.name.clone(), source })?;
        }
        self.drain.reload(&config.sinks)?;

        self.queue.limit(&config.queue);
        let sinks = known_sinks(&self.queue, &config.sinks);
        for ((running, proxy), certificates) in live.proxies.iter_mut().zip(&config.proxies).zip(&certificates) {
            if gone.contains(&proxy.name) {
                continue;
            }
            let former = Arc::clone(&running.serving.borrow().proxy);
            let (server, client) = (certificates.server.clone(), certificates.client.clone());
            let proxy = former.renew(proxy.clone(), config.queue.on_full, &sinks, &self.metrics, client);
            running.serving.send_replace(Serving { proxy, tls: server });
            running.certificates = certificates.clone();
        }
        live.settings.send_replace(Arc::new(settings(&config, sinks, &live.proxies)));
        live.config = config;
        let again = move || certificates.iter().for_each(Certificates::reload);
        if tokio::task::spawn_blocking(again).await.is_err() {
            tracing::error!("reading the certificates again panicked; those that were not read stay as they were");
        }
        for what in kept {
            tracing::warn!(what, "this change needs a restart; it stays as it was");
        }
        Ok(())
    }
}

/// What is to be in force.
struct Combined {
    /// The new configuration, with what can't change taken from the former; its proxies are those that run.
    config: Config,
    /// The proxies of these that the new one doesn't have.
    gone: Vec<String>,
    /// What of the new one needs a restart.
    kept: Vec<String>,
}

fn combined(former: &Config, mut new: Config) -> Combined {
    let (mut proxies, mut gone, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let mut keep = |what: String, differs: bool| kept.extend(differs.then_some(what));
    for former in &former.proxies {
        let name = &former.name;
        if let Some(at) = new.proxies.iter().position(|proxy| proxy.name == *name) {
            let proxy = new.proxies.remove(at);
            keep(format!("proxy {name}: listen"), proxy.listen != former.listen);
            keep(format!("proxy {name}: socket_mode, socket_user or socket_group"), proxy.socket != former.socket);
            proxies.push(Proxy { listen: former.listen.clone(), socket: former.socket, ..proxy });
        } else {
            keep(format!("proxy {name}: it is no longer there"), true);
            gone.push(name.clone());
            proxies.push(former.clone());
        }
    }
    for proxy in &new.proxies {
        keep(format!("proxy {}: it is new", proxy.name), true);
    }
    let (queue, admin, log) = (&former.queue, &former.admin, &former.log);
    keep("queue.path".to_owned(), new.queue.path != queue.path);
    keep("queue.durability or queue.interval".to_owned(), new.queue.durability != queue.durability);
    keep("queue.encryption_key_file".to_owned(), new.queue.encryption_keys != queue.encryption_keys);
    keep("admin.listen".to_owned(), new.admin.listen != admin.listen);
    keep("log.format".to_owned(), new.log.format != log.format);
    keep("log.file".to_owned(), new.log.file != log.file);
    let config = Config {
        proxies,
        queue: Queue {
            path: queue.path.clone(),
            durability: queue.durability,
            encryption_keys: queue.encryption_keys.clone(),
            ..new.queue
        },
        sinks: new.sinks,
        admin: Admin { listen: admin.listen.clone(), ..new.admin },
        log: Log { level: new.log.level, ..log.clone() },
    };
    Combined { config, gone, kept }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Durability, Input, Listen, read};

    const TEXT: &str = "[queue]\npath = \"q\"\n[[sink]]\nname = \"log\"\ntype = \"file\"\npath = \"x\"\n\
        [[proxy]]\nname = \"a\"\nlisten = \"127.0.0.1:1\"\nupstream = \"http://h\"\n\
        [[proxy]]\nname = \"b\"\nlisten = \"127.0.0.1:2\"\nupstream = \"http://h\"\n";

    fn config(text: &str) -> Config {
        read(text, Path::new("c.toml"), &Input::default()).unwrap()
    }

    #[test]
    fn what_can_change_does_and_nothing_is_told_of_it() {
        let text = TEXT.replace("http://h", "http://other").replace("\"x\"", "\"y\"") + "[log]\nlevel = \"debug\"\n";
        let text = text.replace("path = \"q\"", "path = \"q\"\nmax_episodes = 7\ncommit_wait = \"1s\"\non_full = \"reject\"");
        let Combined { config, gone, kept } = combined(&config(TEXT), config(&text));
        assert_eq!((gone, kept), (Vec::<String>::new(), Vec::<String>::new()));
        assert_eq!(config.proxies[1].upstream.to_string(), "http://other");
        assert_eq!((config.queue.max_episodes, config.log.level.as_str()), (7, "debug"));
    }

    #[test]
    fn what_needs_a_restart_is_told_and_stays() {
        let text = TEXT.replace("127.0.0.1:1", "127.0.0.1:3").replace("name = \"b\"", "name = \"c\"");
        let text = text.replace("path = \"q\"", "path = \"r\"\ndurability = \"interval\"");
        let text = text + "[admin]\nlisten = \"127.0.0.1:4\"\n[log]\nfile = \"f\"\nformat = \"json\"\nlevel = \"warn\"\n";
        let former = config(TEXT);
        let Combined { config, gone, kept } = combined(&former, config(&text));
        let expected = [
            "proxy a: listen",
            "proxy b: it is no longer there",
            "proxy c: it is new",
            "queue.path",
            "queue.durability or queue.interval",
            "admin.listen",
            "log.format",
            "log.file",
        ];
        assert_eq!((gone, kept), (vec!["b".to_owned()], expected.map(str::to_owned).to_vec()));
        let proxies: Vec<_> = config.proxies.iter().map(|proxy| (proxy.name.as_str(), proxy.listen.clone())).collect();
        let tcp = |address: &str| Listen::Tcp(address.to_owned());
        assert_eq!(proxies, [("a", tcp("127.0.0.1:1")), ("b", tcp("127.0.0.1:2"))], "those that run, in their order");
        assert_eq!((&config.queue.path, config.queue.durability), (&former.queue.path, Durability::Sync));
        assert_eq!((&config.log.file, config.log.level.as_str()), (&None, "warn"));
        assert_eq!(config.admin.listen, former.admin.listen);
    }
}
