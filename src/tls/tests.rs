use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::socket::Socket;

/// A directory with `NAME.pem` and `NAME.key` for each name, all issued by the authority of `ca.pem`.
fn certificates(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = KeyPair::generate().unwrap();
    let own = params.self_signed(&authority).unwrap();
    std::fs::write(dir.path().join("ca.pem"), own.pem()).unwrap();
    let issuer = Issuer::new(params, authority);
    for name in names {
        issue(dir.path(), name, &issuer);
    }
    dir
}

fn issue(dir: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// The authority.
fn roots(dir: &TempDir) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(dir, "ca.pem")).unwrap();
    roots
}

fn files(dir: &TempDir, cert: &str, key: &str) -> ServerTls {
    ServerTls { cert_file: dir.path().join(cert), key_file: dir.path().join(key) }
}

fn trusting(dir: &TempDir) -> UpstreamTls {
    UpstreamTls { ca_file: Some(dir.path().join("ca.pem")), client: None }
}

/// Both ends of a connection over a unix socket.
async fn shake_hands(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> std::io::Result<(Socket, Socket)> {
    let (a, b) = UnixStream::pair()?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio::try_join!(Socket::Unix(a).serve_tls(server), Socket::Unix(b).connect_tls(client, name))
}

/// The certificate that the server shows.
fn shown(client: &Socket) -> CertificateDer<'static> {
    let Socket::Tls(stream) = client else { panic!("{client:?}") };
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn certificate(dir: &TempDir, name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(dir.path().join(name)).unwrap()
}

fn told<T>(loaded: Result<T, TlsError>, dir: &TempDir) -> String {
    loaded.err().map(|error| error.to_string()).unwrap_or_default().replace(dir.path().to_str().unwrap(), "DIR")
}

#[tokio::test]
async fn both_sides_talk_and_agree_on_http_2() {
    let dir = certificates(&["a"]);
    let (server, client) = (Server::load(&files(&dir, "a.pem", "a.key")).unwrap(), Client::load(&trusting(&dir)).unwrap());
    let (mut at_server, mut at_client) = shake_hands(server.current(), client.current()).await.unwrap();
    assert!(at_server.agreed_on_h2() && at_client.agreed_on_h2());
    assert!(at_server.is_write_vectored());
    at_client.write_all(b"ping").await.unwrap();
    at_client.shutdown().await.unwrap();
    let mut said = String::new();
    at_server.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "ping");
    // The other half is still open.
    at_server.write_all(b"pong").await.unwrap();
    at_server.shutdown().await.unwrap();
    said.clear();
    at_client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "pong");
}

#[tokio::test]
async fn each_version_and_each_protocol_of_old_is_served() {
    let dir = certificates(&["a"]);
    let server = Server::load(&files(&dir, "a.pem", "a.key")).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for protocols in [&[][..], &["http/1.1"], &["http/1.0"], &["spdy/3", "h2"]] {
            let mut client = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots(&dir))
                .with_no_client_auth();
            client.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            let (at_server, _) = shake_hands(server.current(), Arc::new(client)).await.unwrap();
            assert_eq!(at_server.agreed_on_h2(), protocols.contains(&"h2"), "{version:?} {protocols:?}");
        }
    }
}

#[tokio::test]
async fn an_authority_that_is_not_trusted_is_refused() {
    let (dir, other) = (certificates(&["a"]), certificates(&[]));
    let server = Server::load(&files(&dir, "a.pem", "a.key")).unwrap();
    let client = Client::load(&trusting(&other)).unwrap();
    let error = shake_hands(server.current(), client.current()).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

/// As `openssl req -x509` makes it: an authority that has signed itself, and is a server.
fn self_signed(name: &str, until: i32) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(dir.path().join("ca.key"), key.serialize_pem()).unwrap();
    dir
}

#[tokio::test]
async fn a_certificate_that_has_signed_itself_is_trusted_if_it_is_in_the_file_and_for_its_names_and_its_time_alone() {
    let refused = async |shown: &TempDir, trusted: &TempDir| {
        let server = Server::load(&files(shown, "ca.pem", "ca.key")).unwrap();
        let client = Client::load(&trusting(trusted)).unwrap();
        shake_hands(server.current(), client.current()).await.err().map(|error| error.to_string())
    };
    let (own, other) = (self_signed("localhost", 4000), self_signed("localhost", 4000));
    assert_eq!(refused(&own, &own).await, None);
    assert!(refused(&own, &other).await.is_some());
    let elsewhere = self_signed("agent.example", 4000);
    assert!(refused(&elsewhere, &elsewhere).await.unwrap().contains("not valid for name"));
    let old = self_signed("localhost", 2001);
    assert!(refused(&old, &old).await.unwrap().contains("expired"));
}

#[tokio::test]
async fn the_upstream_sees_the_clients_certificate() {
    let dir = certificates(&["server", "client"]);
    let identity = identity(&files(&dir, "server.pem", "server.key")).unwrap();
    let roots = Arc::new(roots(&dir));
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider()).build().unwrap();
    let strict = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    let strict = Arc::new(strict);
    let mut tls = trusting(&dir);
    let without = Client::load(&tls).unwrap();
    assert!(shake_hands(Arc::clone(&strict), without.current()).await.is_err());
    tls.client = Some(files(&dir, "client.pem", "client.key"));
    let with = Client::load(&tls).unwrap();
    let (at_server, _) = shake_hands(strict, with.current()).await.unwrap();
    assert_eq!(shown(&at_server), certificate(&dir, "client.pem"));
}

#[tokio::test]
async fn a_reload_counts_from_the_next_connection_on() {
    let dir = certificates(&["a", "b"]);
    let (server, client) = (Server::load(&files(&dir, "a.pem", "a.key")).unwrap(), Client::load(&trusting(&dir)).unwrap());
    let (_first, at_client) = shake_hands(server.current(), client.current()).await.unwrap();
    let old = certificate(&dir, "a.pem");
    assert_eq!(shown(&at_client), old);
    for kind in ["pem", "key"] {
        std::fs::copy(dir.path().join(format!("b.{kind}")), dir.path().join(format!("a.{kind}"))).unwrap();
    }
    server.reload().unwrap();
    client.reload().unwrap();
    let (_second, at_client) = shake_hands(server.current(), client.current()).await.unwrap();
    assert_eq!(shown(&at_client), certificate(&dir, "b.pem"));
    assert_ne!(shown(&at_client), old);
}

#[tokio::test]
async fn a_reload_of_a_broken_file_changes_nothing() {
    let dir = certificates(&["a"]);
    let (server, client) = (Server::load(&files(&dir, "a.pem", "a.key")).unwrap(), Client::load(&trusting(&dir)).unwrap());
    let before = (server.current(), client.current());
    std::fs::write(dir.path().join("a.key"), "").unwrap();
    std::fs::write(dir.path().join("ca.pem"), "").unwrap();
    assert!(told(server.reload(), &dir).starts_with("DIR/a.key has no private key in it, allowed: "));
    assert!(told(client.reload(), &dir).starts_with("DIR/ca.pem has no certificate in it, allowed: "));
    assert!(Arc::ptr_eq(&before.0, &server.current()) && Arc::ptr_eq(&before.1, &client.current()));
    shake_hands(server.current(), client.current()).await.unwrap();
}

#[test]
fn what_cannot_be_used_is_told_with_its_file_and_what_is_allowed() {
    let dir = certificates(&["a", "b"]);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let base64 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    write("empty", "");
    write("torn", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    write("garbled", "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n");
    write("nonsense", base64);
    write("odd", &base64.replace("CERTIFICATE", "PRIVATE KEY"));
    write("locked", &base64.replace("CERTIFICATE", "ENCRYPTED PRIVATE KEY"));
    let key = std::fs::read_to_string(dir.path().join("a.key")).unwrap();
    write("two", &format!("{key}{key}"));
    for (cert, key, expected) in [
        ("none", "a.key", "DIR/none cannot be read (No such file or directory (os error 2)), allowed: PEM, first the"),
        (".", "a.key", "DIR/. cannot be read (Is a directory (os error 21)), allowed: "),
        ("empty", "a.key", "DIR/empty has no certificate in it, allowed: "),
        ("a.key", "a.key", "DIR/a.key has no certificate in it, allowed: "),
        ("torn", "a.key", "DIR/torn is no valid PEM (a section has no end), allowed: "),
        ("nonsense", "a.key", "DIR/nonsense has a certificate that cannot be used ("),
        ("a.pem", "none", "DIR/none cannot be read (No such file or directory (os error 2)), allowed: PEM, a private key"),
        ("a.pem", "a.pem", "DIR/a.pem has no private key in it, allowed: "),
        ("a.pem", "garbled", "DIR/garbled is no valid PEM (a section is no base64), allowed: "),
        ("a.pem", "odd", "DIR/odd has a private key that cannot be used ("),
        ("a.pem", "locked", "DIR/locked has only an encrypted private key in it, allowed: "),
        ("a.pem", "two", "DIR/two has 2 private keys in it, allowed: one"),
        ("a.pem", "b.key", "DIR/b.key does not fit the certificate in DIR/a.pem, allowed: its own private key"),
    ] {
        let files = files(&dir, cert, key);
        let server = told(Server::load(&files), &dir);
        assert!(server.starts_with(expected), "{server}");
        let client = told(Client::load(&UpstreamTls { client: Some(files), ..trusting(&dir) }), &dir);
        assert_eq!(client, server);
    }
    let client = told(Client::load(&UpstreamTls { ca_file: Some(dir.path().join("nonsense")), client: None }), &dir);
    assert!(client.starts_with("DIR/nonsense has a certificate that cannot be used ("), "{client}");
}
