use std::path::Path;
use std::time::Duration;

use super::{PROXY, input, read_with};
use crate::config::load::{self, Input};
use crate::config::{Listen, Scheme, SocketFile, Upstream, UpstreamTls};

#[test]
fn each_kind_of_address_is_read() {
    let scheme = |upstream: &str| {
        let set = format!("proxy.a.upstream={upstream}");
        let config = read_with(PROXY, &[], &[&set]).unwrap();
        let Upstream::Http { scheme, port, .. } = &config.proxies[0].upstream else { panic!("{upstream}") };
        assert_eq!(config.proxies[0].upstream.to_string(), upstream);
        (*scheme, *port)
    };
    assert_eq!(scheme("http://h"), (Scheme::Http, 80));
    assert_eq!(scheme("h2c://h"), (Scheme::H2c, 80));
    assert_eq!(scheme("h2c://[::1]:50051"), (Scheme::H2c, 50051));
    let listen = |listen: &str| read_with(PROXY, &[], &[&format!("proxy.a.listen={listen}")]).unwrap().proxies[0].listen.clone();
    assert_eq!(listen("fd:agent.socket"), Listen::Fd("agent.socket".to_owned()));
    // Not through `read_with`: what the system trusts is no matter of this test.
    let https = load::read(&PROXY.replace("http:", "https:"), Path::new("c.toml"), &Input::default()).unwrap();
    assert!(matches!(&https.proxies[0].upstream, Upstream::Http { scheme: Scheme::Https, port: 443, .. }));
}

#[test]
fn a_proxys_own_keys_are_read() {
    let text = format!(
        "{PROXY}socket_mode = \"0660\"\nsocket_user = \"root\"\nsocket_group = 12345\nmax_headers = 7\nmax_header_size = \"8KiB\"\n\
         breaker = {{ consecutive_failures = 3, open_for = \"1s\" }}\nfallback = {{ status = 200, body = '[]' }}\n"
    );
    let config =
        read_with(&text, &[("OFFRAMP_PROXY__A__LISTEN", "unix:/a"), ("OFFRAMP_PROXY__A__SOCKET_MODE", "640")], &[]).unwrap();
    let proxy = &config.proxies[0];
    assert_eq!(proxy.socket, SocketFile { mode: Some(0o640), user: Some(0), group: Some(12345) });
    assert_eq!((proxy.max_headers, proxy.max_header_size), (7, 8192));
    assert_eq!((proxy.breaker.consecutive_failures, proxy.breaker.open_for), (3, Duration::from_secs(1)));
    assert_eq!((proxy.fallback.status.as_u16(), proxy.fallback.body.as_ref()), (200, &b"[]"[..]));
    assert_eq!(proxy.fallback.content_type, "application/json");
    assert_eq!((&proxy.tls, &proxy.upstream_tls), (&None, &UpstreamTls::default()));
}

#[test]
fn certificates_are_looked_for_among_the_credentials_first_and_loaded_when_asked() {
    let (credentials, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(credentials.path().join("server.key"), signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.path().join("server.key"), "not this one").unwrap();
    std::fs::write(dir.path().join("server.pem"), cert.pem()).unwrap();
    let text = format!("{PROXY}tls = {{ cert_file = \"server.pem\", key_file = \"server.key\" }}\n");
    let path = dir.path().join("c.toml");
    let with = input(&[("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap())], &[]);
    let config = load::read_with(&text, &path, &with, crate::tls::faults).unwrap();
    let files = config.proxies[0].tls.clone().unwrap();
    assert_eq!((files.cert_file, files.key_file), (dir.path().join("server.pem"), credentials.path().join("server.key")));
    let without = load::read_with(&text, &path, &Input::default(), crate::tls::faults).unwrap_err().to_string();
    assert!(without.contains("c.toml:5:46: `tls.key_file` is ") && without.contains("which has no private key"), "{without}");
    // `status` and the like have no business with them, and may not be allowed to read them.
    assert!(load::read(&text, &path, &Input::default()).is_ok());
}
