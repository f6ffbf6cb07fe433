//! TLS on both sides, and certificates that change under a running offramp.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use offramp::config::UpstreamTls;
use offramp::socket::Socket;
use offramp::tls::Client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::support::certificates::certificates;
use crate::support::offramp::Offramp;
use crate::support::wait_until;
use crate::support::world::{LIMIT, World, ask, lasting_port};

/// Whose certificate a new connection is shown: the name of its file.
fn shown(world: &World, port: u16) -> &'static str {
    let tls = Client::load(&UpstreamTls { ca_file: Some(world.dir().join("ca.pem")), client: None }).unwrap();
    let socket = world.runtime().block_on(async {
        let socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.unwrap();
        Socket::Tcp(socket).connect_tls(tls.current(), ServerName::try_from("localhost").unwrap()).await.unwrap()
    });
    let Socket::Tls(stream) = &socket else { panic!("{socket:?}") };
    let certificate = &stream.get_ref().1.peer_certificates().unwrap()[0];
    let is = |name: &&str| CertificateDer::from_pem_file(world.dir().join(format!("{name}.pem"))).unwrap() == *certificate;
    ["first", "second"].into_iter().find(is).expect("a certificate that was issued here")
}

fn show(world: &World, name: &str) {
    for kind in ["pem", "key"] {
        fs::copy(world.dir().join(format!("{name}.{kind}")), world.dir().join(format!("server.{kind}"))).unwrap();
    }
}

#[test]
fn inv1_certificates_change_on_sighup_and_no_connection_notices() {
    let world = World::new();
    certificates(world.dir(), &["first", "second"]);
    show(&world, "first");
    let port = lasting_port();
    // A request goes in plain to the one, over TLS to the other, and from there to the agent.
    let settings = world
        .settings()
        .set("proxy.listen", &format!("'127.0.0.1:{port}'"))
        .set("proxy.tls", "{ cert_file = 'server.pem', key_file = 'server.key' }");
    let outer = format!(
        "[[proxy]]\nname = 'outer'\nlisten = '127.0.0.1:0'\nupstream = 'https://localhost:{port}'\nupstream_tls = {{ ca_file = 'ca.pem' }}\n"
    );
    let mut offramp = Offramp::start(world.dir(), &(settings.text() + &outer));
    let proxy = offramp.proxy("outer");
    let asked = |session: &str| ask(proxy, session, "hi").unwrap().status;
    assert_eq!((asked("one"), shown(&world, port)), (200, "first"));

    fs::write(world.dir().join("server.key"), "").unwrap();
    offramp.signal("HUP");
    assert!(
        wait_until(LIMIT, || offramp.log().contains("the configuration is faulty, and stays as it was")),
        "{}",
        offramp.log()
    );
    let log = offramp.log();
    assert!(log.contains("server.key, which has no private key in it, allowed: "), "{log}");
    assert_eq!((asked("two"), shown(&world, port)), (200, "first"));

    show(&world, "second");
    offramp.signal("HUP");
    assert!(wait_until(LIMIT, || shown(&world, port) == "second"), "{}", offramp.log());
    assert_eq!(asked("three"), 200);
    let status = offramp.wait_for_delivery(3, LIMIT);
    assert_eq!(status["ledger"]["gap"], 0);
    assert!(offramp.stop().success());
}
