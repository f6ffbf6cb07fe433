//! The proxy that one writes first: hyper's server, hyper-util's pooling client, and only the URI changed in between.

use std::io;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::args::Args;

/// Proxies until killed.
pub fn run(args: &Args) -> io::Result<()> {
    let (listen, upstream): (SocketAddr, SocketAddr) = (args.get("listen")?, args.get("upstream")?);
    tokio::runtime::Runtime::new()?.block_on(serve(listen, upstream))
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let client = client.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = client.clone();
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            let uri = Uri::builder().scheme("http").authority(upstream.to_string()).path_and_query(path).build();
            async move {
                *request.uri_mut() = uri.map_err(io::Error::other)?;
                request.headers_mut().remove(CONNECTION);
                client.request(request).await.map_err(io::Error::other)
            }
        });
        // An error is the client's departure.
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await });
    }
}
