//! Where connections come in: TCP, unix sockets, and sockets that the service manager has opened.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixSocket, UnixStream};

use crate::config::{Listen, SocketFile};
use crate::socket::Socket;
use crate::systemd;

/// Connections that the system keeps ready while `max_connections` are being served.
const BACKLOG: u32 = 1024;

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix {
        /// Its file, where that is offramp's own. It goes before the socket closes: as long as that is open no other file can have
        /// its inode.
        file: Option<BoundFile>,
        /// The socket.
        listener: UnixListener,
    },
}

impl Listener {
    /// Binds. A host name is resolved; its first address that can be bound counts. A unix socket's file that is left over (nobody
    /// accepts on it) is removed first; one that somebody listens on is [`io::ErrorKind::AddrInUse`]. Nobody can connect before the
    /// file has the mode and the owner that `file` says. A socket of the service manager can be taken once.
    pub async fn bind(listen: &Listen, file: &SocketFile) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
                for address in tokio::net::lookup_host(address.as_str()).await? {
                    match listen_on(address) {
                        Ok(listener) => return Ok(Self::Tcp(listener)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Listen::Unix(path) => {
                remove_stale(path).await?;
                let socket = UnixSocket::new_stream()?;
                socket.bind(path)?;
                // From here on the file goes again if anything fails.
                let bound = BoundFile::at(path)?;
                bound.hand_over(file)?;
                Ok(Self::Unix { listener: socket.listen(BACKLOG)?, file: Some(bound) })
            }
            Listen::Fd(name) => inherit(systemd::socket(name)?),
        }
    }

    /// The address, with the port that the system gave for port 0; none for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix { .. } => None,
        }
    }

    /// The next connection, and who it comes from where that is an address. Cancel safe.
    pub async fn accept(&self) -> io::Result<(Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // It fails only for a connection that is gone already.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(address.ip())))
            }
            Self::Unix { listener, .. } => Ok((Socket::Unix(listener.accept().await?.0), None)),
        }
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for connections of the last run to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Removes a socket's file that nobody accepts on. Anything else that has this name stays: then bind says that it is taken.
async fn remove_stale(path: &Path) -> io::Result<()> {
    if !tokio::fs::symlink_metadata(path).await.is_ok_and(|file| file.file_type().is_socket()) {
        return Ok(());
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens on this socket")),
        // A file that isn't a socket refuses connections too, which is why the kind was looked at first.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => tokio::fs::remove_file(path).await,
        Err(error) => Err(error),
    }
}

/// A listener of a socket that listens already. A unix socket's file belongs to whoever made it, and stays.
fn inherit(socket: OwnedFd) -> io::Result<Listener> {
    if sockopt::socket_type(&socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(&socket)? {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it accepts no connections, allowed: a stream socket that listens (ListenStream= with Accept=no)",
        ));
    }
    match sockopt::socket_domain(&socket)? {
        AddressFamily::INET | AddressFamily::INET6 => {
            let listener = std::net::TcpListener::from(socket);
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener).map(Listener::Tcp)
        }
        AddressFamily::UNIX => {
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener).map(|listener| Listener::Unix { file: None, listener })
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "its kind is not served, allowed: TCP or a unix socket")),
    }
}

/// The file of a unix socket that offramp has bound. Dropped, it is removed, unless another has taken its place.
#[derive(Debug)]
pub struct BoundFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl BoundFile {
    fn at(path: &Path) -> io::Result<Self> {
        let file = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }

    /// Sets the mode and the owner; the owner last, because the file then belongs to somebody else.
    fn hand_over(&self, to: &SocketFile) -> io::Result<()> {
        let told = |what: &str, error: &io::Error| io::Error::new(error.kind(), format!("its {what} cannot be set: {error}"));
        if let Some(mode) = to.mode {
            std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(mode)).map_err(|e| told("mode", &e))?;
        }
        if to.user.is_some() || to.group.is_some() {
            chown(&self.path, to.user, to.group).map_err(|e| told("owner", &e))?;
        }
        Ok(())
    }
}

impl Drop for BoundFile {
    fn drop(&mut self) {
        let own = |file: std::fs::Metadata| file.dev() == self.device && file.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(own) {
            // One that can't be removed is left over, and taken for that at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn unix(path: &Path) -> Listen {
        Listen::Unix(path.to_owned())
    }

    async fn bind(listen: &Listen) -> io::Result<Listener> {
        Listener::bind(listen, &SocketFile::default()).await
    }

    #[tokio::test]
    async fn a_unix_socket_left_over_is_taken_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        // Nobody removes the file of this one.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _first = bind(&unix(&path)).await.unwrap();
        assert_eq!(bind(&unix(&path)).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        UnixStream::connect(&path).await.unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(bind(&unix(&file)).await.is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_unix_socket_takes_its_file_with_it_unless_the_name_is_anothers_by_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(bind(&unix(&path)).await.unwrap());
        assert!(!path.exists());
        let first = bind(&unix(&path)).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = bind(&unix(&path)).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.unwrap();
    }

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_its_owner_before_anybody_can_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        // One's own ids: giving a file away is for root alone.
        let own = std::fs::metadata(dir.path()).unwrap();
        for mode in [0o600, 0o660, 0o666] {
            let file = SocketFile { mode: Some(mode), user: Some(own.uid()), group: Some(own.gid()) };
            let _listener = Listener::bind(&unix(&path), &file).await.unwrap();
            let made = std::fs::metadata(&path).unwrap();
            assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (mode, own.uid(), own.gid()));
        }
        if own.uid() == 0 {
            let nobody = SocketFile { user: Some(65_534), group: Some(65_534), ..SocketFile::default() };
            let _listener = Listener::bind(&unix(&path), &nobody).await.unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().uid(), 65_534);
        } else {
            let root = SocketFile { user: Some(0), ..SocketFile::default() };
            let error = Listener::bind(&unix(&path), &root).await.unwrap_err();
            assert!(error.to_string().starts_with("its owner cannot be set: "), "{error}");
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn a_tcp_listener_says_who_connects_and_a_unix_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let tcp = bind(&Listen::Tcp("localhost:0".to_owned())).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (accepted, client) = tokio::join!(tcp.accept(), tokio::net::TcpStream::connect(address));
        let (socket, peer) = accepted.unwrap();
        let Socket::Tcp(socket) = socket else { panic!("{socket:?}") };
        assert_eq!(peer, Some(client.unwrap().local_addr().unwrap().ip()));
        assert!(socket.nodelay().unwrap());
        let path = dir.path().join("agent.sock");
        let listener = bind(&unix(&path)).await.unwrap();
        assert_eq!(listener.local_addr(), None);
        let (accepted, _client) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        assert!(matches!(accepted.unwrap(), (Socket::Unix(_), None)));
    }

    /// Sockets are passed to a process as it begins, so the other side of this is the same test, started again by a shell that puts
    /// its standard input and output where systemd puts sockets.
    #[tokio::test]
    async fn sockets_of_the_service_manager_are_taken_by_name() {
        const INNER: &str = "OFFRAMP_TEST_SOCKETS";
        if std::env::var_os(INNER).is_some() {
            return take_and_greet().await;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let local = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let passed = |socket: &dyn AsFd| Stdio::from(socket.as_fd().try_clone_to_owned().unwrap());
        let mut inner = Command::new("sh")
            .args(["-c", "exec 3<&0 4<&1 5</dev/null 1>&2; LISTEN_PID=$$ exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "server::listener::tests::sockets_of_the_service_manager_are_taken_by_name"])
            .env(INNER, "1")
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "web:local:odd")
            .stdin(passed(&tcp))
            .stdout(passed(&local))
            .spawn()
            .unwrap();
        let greeting = async {
            let mut said = String::new();
            let mut web = tokio::net::TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
            web.read_to_string(&mut said).await.unwrap();
            UnixStream::connect(&path).await.unwrap().read_to_string(&mut said).await.unwrap();
            said
        };
        // Both sockets stay open here, so a process that failed would be waited for in vain.
        let ended = tokio::task::spawn_blocking(move || inner.wait().unwrap());
        let mut greeting = std::pin::pin!(greeting);
        let said = tokio::select! {
            said = &mut greeting => said,
            ended = ended => {
                assert!(ended.unwrap().success());
                greeting.await
            }
        };
        assert_eq!(said, "web local");
        assert!(path.exists());
    }

    async fn take_and_greet() {
        let fd = |name: &str| Listen::Fd(name.to_owned());
        let error = bind(&fd("wbe")).await.unwrap_err().to_string();
        assert_eq!(error, r#"the service manager has passed no socket of this name, allowed: "web" or "local" or "odd""#);
        let odd = bind(&fd("odd")).await.unwrap_err();
        assert_eq!(odd.raw_os_error(), Some(rustix::io::Errno::NOTSOCK.raw_os_error()));
        let (web, local) = (bind(&fd("web")).await.unwrap(), bind(&fd("local")).await.unwrap());
        assert!(web.local_addr().is_some() && local.local_addr().is_none());
        let error = bind(&fd("web")).await.unwrap_err().to_string();
        assert!(error.contains("has passed no socket that is free"), "{error}");
        for (listener, greeting) in [(web, "web "), (local, "local")] {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(greeting.as_bytes()).await.unwrap();
            socket.shutdown().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_socket_that_accepts_nothing_is_refused() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let told = |socket: OwnedFd| inherit(socket).unwrap_err().to_string();
        assert!(told(one.into()).starts_with("it accepts no connections, allowed: "));
        assert!(
            told(std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into()).starts_with("it accepts no connections, allowed: ")
        );
    }
}
