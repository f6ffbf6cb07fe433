//! The floor: bytes from one socket to the other.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::args::Args;

/// Relays until killed.
pub fn run(args: &Args) -> io::Result<()> {
    let (listen, upstream): (SocketAddr, SocketAddr) = (args.get("listen")?, args.get("upstream")?);
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        loop {
            let (mut client, _) = listener.accept().await?;
            tokio::spawn(async move {
                let mut server = TcpStream::connect(upstream).await?;
                client.set_nodelay(true)?;
                server.set_nodelay(true)?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    })
}
