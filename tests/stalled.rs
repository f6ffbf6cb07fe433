//! A disk that hangs: neither an error nor an end of anything that is done to the queue's files.
//!
//! The disk is that of `support/disk.rs`. With `OFFRAMP_FREEZE=1` the same is done with an ext4 that is frozen; that needs root.

use std::time::{Duration, Instant};

use offramp::demo::graph::Options;

use crate::support::disk::Disk;
use crate::support::offramp::Offramp;
use crate::support::volume::Volume;
use crate::support::world::{LIMIT, Settings, World};
use crate::support::{number, wait_until};

const COMMIT_WAIT: Duration = Duration::from_millis(250);

/// What a busy machine may add to any time.
const SLACK: Duration = Duration::from_secs(2);

const DRAIN_TIMEOUT: Duration = Duration::from_secs(6);

/// A disk that can be made to hang.
trait Hangs {
    fn start(&self, world: &World, settings: &Settings) -> Offramp;
    fn stall(&self);
    fn thaw(&self);
}

impl Hangs for Disk {
    fn start(&self, world: &World, settings: &Settings) -> Offramp {
        world.start_as(settings, |command| self.under(command))
    }

    fn stall(&self) {
        Disk::stall(self);
    }

    fn thaw(&self) {
        Disk::thaw(self);
    }
}

impl Hangs for Volume {
    fn start(&self, world: &World, settings: &Settings) -> Offramp {
        world.start_as(settings, |command| self.enter(&command))
    }

    fn stall(&self) {
        self.freeze();
    }

    fn thaw(&self) {
        self.thaw();
    }
}

fn world() -> World {
    World::with(Duration::from_millis(10), Options::default())
}

fn settings(world: &World) -> Settings {
    world
        .settings()
        .set("queue.path", "'disk/queue'")
        .set("queue.commit_wait", &format!("'{}ms'", COMMIT_WAIT.as_millis()))
        .set("proxy.drain_timeout", &format!("'{}s'", DRAIN_TIMEOUT.as_secs()))
}

fn kept(world: &World) -> Disk {
    let dir = world.dir().join("disk");
    std::fs::create_dir(&dir).unwrap();
    Disk::new(&dir)
}

/// A real one, if it is asked for.
fn frozen(world: &World) -> Option<Volume> {
    (number("OFFRAMP_FREEZE")? > 0).then(|| Volume::ext4(&world.dir().join("disk"), 256).unwrap())
}

#[test]
fn inv2_inv3_inv8_requests_go_on_while_the_disk_hangs() {
    let world = world();
    requests_go_on(&world, &kept(&world));
}

#[test]
fn inv2_inv3_inv8_requests_go_on_while_a_real_disk_is_frozen() {
    let world = world();
    if let Some(volume) = frozen(&world) {
        requests_go_on(&world, &volume);
    }
}

fn requests_go_on(world: &World, disk: &impl Hangs) {
    let mut offramp = disk.start(world, &settings(world));
    let before = world.load(&offramp, "before", 60, 20);
    offramp.wait_for_status("they are captured", LIMIT, |status| status["ledger"]["captured"] == 60);

    disk.stall();
    let began = Instant::now();
    let meanwhile = world.load(&offramp, "meanwhile", 200, 20);
    offramp.wait_for_status("the queue is degraded", LIMIT, |status| status["queue"]["state"] == "degraded");
    let refused = world.load(&offramp, "refused", 40, 20);
    assert!(wait_until(LIMIT, || began.elapsed() > Duration::from_secs(10)));
    let status = offramp.status();
    assert_eq!(status["ledger"]["gap"], 0, "{status:#}");
    disk.thaw();

    for (when, outcome) in [("while it hung", &meanwhile), ("once that was known", &refused)] {
        assert_eq!(outcome.failed(), 0, "{when}: {:?}", outcome.errors);
        let slowest = Duration::from_micros(outcome.latency.max());
        assert!(slowest < COMMIT_WAIT + SLACK, "{when} a request took {slowest:?}");
    }
    offramp.wait_for_status("the queue works again", LIMIT, |status| status["queue"]["state"] == "ok");
    let after = world.load(&offramp, "after", 60, 20);
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0, "{status:#}");
    assert_eq!(status["ledger"]["delivered"], status["ledger"]["captured"]);
    world.assert_stored(&[&before, &after]);
    world.assert_sent_once();
    assert!(offramp.stop().success());
}

#[test]
fn sigterm_ends_it_within_the_drain_timeout_although_the_disk_hangs() {
    let world = world();
    let disk = kept(&world);
    let mut offramp = disk.start(&world, &settings(&world));
    let before = world.load(&offramp, "before", 40, 20);
    offramp.wait_for_status("they are captured", LIMIT, |status| status["ledger"]["captured"] == 40);
    disk.stall();
    let meanwhile = world.load(&offramp, "meanwhile", 20, 20);
    assert_eq!((before.failed(), meanwhile.failed()), (0, 0));

    let told = Instant::now();
    offramp.signal("TERM");
    assert!(wait_until(DRAIN_TIMEOUT + SLACK, || !offramp.is_running()), "it still runs after {:?}", told.elapsed());
    let log = offramp.log();
    assert!(log.contains("the queue's disk does not answer"), "{log}");
    assert_eq!(offramp.wait().code(), Some(1));

    disk.thaw();
    std::fs::rename(world.dir().join("disk"), world.dir().join("disk-after")).unwrap();
    let mut offramp = world.start(&settings(&world).set("queue.path", "'disk-after/queue'"));
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0, "{status:#}");
    world.assert_stored(&[&before]);
}

/// A process with a thread inside a frozen file system can't end before that thaws, whatever it does; but it can say what is the matter.
#[test]
fn sigterm_on_a_frozen_disk_says_what_is_the_matter() {
    let world = world();
    let Some(volume) = frozen(&world) else { return };
    let mut offramp = volume.start(&world, &settings(&world));
    volume.freeze();
    assert_eq!(world.load(&offramp, "meanwhile", 20, 20).failed(), 0);
    offramp.signal("TERM");
    assert!(
        wait_until(DRAIN_TIMEOUT + SLACK, || offramp.log().contains("the queue's disk does not answer")),
        "{}",
        offramp.log()
    );
    assert!(offramp.is_running());
    volume.thaw();
    assert_eq!(offramp.wait().code(), Some(1));
}
