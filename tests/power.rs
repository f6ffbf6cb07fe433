//! Lost power: what no sync covers is gone, or half of it is there.
//!
//! The disk is one that keeps a diary (`support/disk.rs`): one life of offramp on it gives as many cuts as wanted, each with what a disk
//! would hold then, on which the real binary is started. `OFFRAMP_POWER_CUTS` is their number: 5 by default. With the variable set the same is
//! done with a real ext4 too, so many times; that needs root. `OFFRAMP_SEED` is for luck and moments what it is for kill -9.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::routing::post;
use axum::{Json, Router};
use fastrand::Rng;
use offramp::demo::client::Client;
use offramp::demo::graph::{Mode, Options};
use offramp::demo::load::{Conversation, Mark};
use serde_json::{Value, json};

use crate::support::disk::{Disk, Luck};
use crate::support::offramp::Offramp;
use crate::support::tree::Tree;
use crate::support::volume::Volume;
use crate::support::world::{LIMIT, Settings, World, exchange, faults, lasting_port};
use crate::support::{number, wait_until};

const CLIENTS: usize = 20;

/// Cuts made of one life: all but the last one somewhere in it, the last one at its end.
const CUTS_OF_A_LIFE: u64 = 5;

/// An answer that somebody has got, and how far the disk was then.
#[derive(Debug, Clone)]
struct Answer {
    mark: Mark,
    at: SystemTime,
    position: u64,
}

/// Clients that talk until they are told to stop, or offramp is gone.
struct Load {
    answers: Arc<Mutex<Vec<Answer>>>,
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Conversation>>,
}

impl Load {
    /// `position` says how far the disk is.
    fn start(world: &World, offramp: &Offramp, life: u64, position: impl Fn() -> u64 + Send + Clone + 'static) -> Self {
        let mut load = Self { answers: Arc::default(), count: Arc::default(), stop: Arc::default(), clients: Vec::new() };
        let target = offramp.proxy("agent");
        for client in 0..CLIENTS {
            let (answers, count, stop) = (Arc::clone(&load.answers), Arc::clone(&load.count), Arc::clone(&load.stop));
            let position = position.clone();
            let mut conversation = Conversation { name: format!("power-{life}-{client}"), ..Conversation::default() };
            load.clients.push(world.runtime().spawn(async move {
                let mut asker = Client::new(target, LIMIT);
                for number in 1.. {
                    let mark = Mark { session: conversation.name.clone(), number };
                    let Ok(reply) = asker.ask(&mark).await else {
                        conversation.failed.push(number);
                        break;
                    };
                    answers.lock().unwrap().push(Answer { mark, at: SystemTime::now(), position: position() });
                    count.fetch_add(1, Ordering::Relaxed);
                    conversation.id = Some(reply.session_id);
                    conversation.answered.push(number);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                conversation
            }));
        }
        load
    }

    fn wait_for(&self, answers: usize, offramp: &Offramp) {
        let in_time = wait_until(LIMIT, || self.answered() >= answers);
        assert!(in_time, "{} of {answers} answers; {:#}; its log:\n{}", self.answered(), offramp.status(), offramp.log());
    }

    fn answered(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn end(self, world: &World) -> (Vec<Answer>, Vec<Conversation>) {
        self.stop.store(true, Ordering::Relaxed);
        let conversations = self.clients.into_iter().map(|client| world.runtime().block_on(client).unwrap()).collect();
        (Arc::try_unwrap(self.answers).unwrap().into_inner().unwrap(), conversations)
    }
}

fn position(disk: &Arc<Disk>) -> impl Fn() -> u64 + Send + Clone + 'static {
    let disk = Arc::clone(disk);
    move || disk.position()
}

fn world() -> World {
    World::with(Duration::ZERO, Options { write_delay: Duration::from_millis(50), mode: Mode::Parallel(20) })
}

fn settings(world: &World, queue: &str) -> Settings {
    world
        .settings()
        .set("proxy.upstream", &format!("'http://{}'", world.serve(agent())))
        .set("queue.path", &format!("'{queue}'"))
        // The promise holds for a last byte that waited for its commit.
        .set("queue.commit_wait", "'30s'")
        .set("sink.workers", "20")
        .set("sink.timeout", "'5s'")
        .set("sink.confirm", "{ mode = 'read_back', timeout = '20s', poll = '50ms' }")
}

/// An agent whose answers have any length: what is written is more than one row then, and more than one block.
fn agent() -> Router {
    Router::new().fallback(post(|Json(question): Json<Value>| async move {
        let length = if fastrand::bool() { fastrand::usize(..200) } else { fastrand::usize(..20_000) };
        Json(json!({ "message": "x".repeat(length), "session_id": question["session_name"], "success": true }))
    }))
}

fn rng() -> Rng {
    let seed = number("OFFRAMP_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("OFFRAMP_SEED={seed}");
    Rng::with_seed(seed)
}

/// Starts offramp on what a disk held, and its sink has nobody to talk to: the messages that are there.
fn messages_after(world: &World, image: &Tree, what: &str, promised: Promised) -> Vec<Mark> {
    eprintln!("{what}");
    let dir = world.dir().join("image");
    image.make(&dir);
    let nobody = format!("'http://127.0.0.1:{}'", lasting_port());
    let offramp = world.start(&settings(world, "image").set("sink.url", &nobody));
    let marks = messages(&offramp, what, promised);
    assert!(offramp.stop().success());
    let told = |fault: &String| promised == Promised::NoGap || !fault.contains("has a gap of");
    assert_eq!(faults(&dir).into_iter().filter(told).collect::<Vec<_>>(), Vec::<String>::new(), "{what}");
    std::fs::remove_dir_all(dir).unwrap();
    marks
}

/// What the ledger may say after a loss of power.
#[derive(Clone, Copy, PartialEq)]
enum Promised {
    NoGap,
    /// What was written and not synced may be there in part: the gap is what of it is gone.
    Balance,
}

/// The messages that a queue has. The ledger balances, each session is in order, and what is there can be read.
fn messages(offramp: &Offramp, what: &str, promised: Promised) -> Vec<Mark> {
    let status = offramp.status();
    let gap = status["ledger"]["gap"].as_u64().expect("never less than nothing");
    assert!(promised == Promised::Balance || gap == 0, "{what}: {status:#}");
    assert_eq!(offramp.metric("offramp_ledger_gap", &[]).map(|gap| gap.to_string()), Some(gap.to_string()), "{what}");
    let episodes = offramp.episodes();
    assert_eq!(status["ledger"]["captured"], episodes.len() as u64 + gap, "{what}: {status:#}");
    let marks: Vec<Mark> = episodes
        .iter()
        .map(|e| Mark::find(e["messages"][0]["content"].as_str().unwrap()).expect("a message of this test"))
        .collect();
    let mut sessions: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for mark in &marks {
        sessions.entry(&mark.session).or_default().push(mark.number);
    }
    for (session, numbers) in sessions {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{what}: {session} is {numbers:?}");
    }
    marks
}

fn missing<'a>(answers: impl Iterator<Item = &'a Answer>, there: &[Mark]) -> Vec<&'a Answer> {
    let there: HashSet<_> = there.iter().map(|mark| (&mark.session, mark.number)).collect();
    answers.filter(|answer| !there.contains(&(&answer.mark.session, answer.mark.number))).collect()
}

#[test]
fn inv2_inv4_inv5_inv8_what_was_answered_outlives_lost_power_whatever_the_disk_made_of_the_rest() {
    let mut cuts = number("OFFRAMP_POWER_CUTS").unwrap_or(CUTS_OF_A_LIFE);
    let mut rng = rng();
    let world = world();
    let (mut answers, mut conversations): (Vec<Answer>, Vec<Conversation>) = (Vec::new(), Vec::new());
    let mut life = 0;
    let mut image = Tree::default();
    while cuts > 0 {
        let queue = format!("queue-{life}");
        let dir = world.dir().join(&queue);
        image.make(&dir);
        let disk = Arc::new(Disk::new(&dir));
        let offramp = world.start_as(&settings(&world, &queue), |command| disk.under(command));
        let load = Load::start(&world, &offramp, life, position(&disk));
        let moment = rng.usize(CLIENTS..500);
        load.wait_for(moment, &offramp);
        offramp.kill();
        let (answered, talked) = load.end(&world);
        conversations.extend(talked);

        let diary = disk.read();
        for cut in (1..=cuts.min(CUTS_OF_A_LIFE)).rev() {
            cuts -= 1;
            // The last cut is where this life ends and the next one begins.
            let position = if cut == 1 { diary.end() } else { diary.any_position(answered[0].position, &mut rng) };
            let luck = Luck::any(&mut rng);
            let what = format!("life {life}, cut at {position} of {}, {luck:?}", diary.end());
            image = disk.cut(&diary, position, u64::MAX, luck, &mut rng);
            let there = messages_after(&world, &image, &what, Promised::NoGap);
            let lost = missing(answers.iter().chain(answered.iter().filter(|answer| answer.position <= position)), &there);
            assert!(lost.is_empty(), "{what}: of {} messages these are lost: {lost:?}", there.len());
        }
        // Whatever life comes next, it had these already.
        answers.extend(answered.into_iter().map(|answer| Answer { position: 0, ..answer }));
        std::fs::remove_dir_all(&dir).unwrap();
        life += 1;
    }

    // The sink has seen everything that ever began; what was in doubt at a cut is looked up.
    image.make(&world.dir().join("queue"));
    let mut offramp = world.start(&settings(&world, "queue"));
    let status = offramp.wait_for_status("drained", LIMIT, |status| status["ledger"]["pending"] == 0);
    assert_eq!(status["ledger"]["gap"], 0);
    world.assert_graph_holds(&conversations, &status);
    world.assert_sent_once();
}

#[test]
fn inv2_with_an_interval_lost_power_takes_no_more_than_that() {
    const INTERVAL: Duration = Duration::from_millis(100);
    // What a busy machine may take to come to it, and a sync itself is counted besides.
    const SLACK: Duration = Duration::from_secs(1);
    let mut rng = rng();
    let world = world();
    let dir = world.dir().join("queue");
    std::fs::create_dir(&dir).unwrap();
    let disk = Arc::new(Disk::new(&dir));
    let settings = settings(&world, "queue")
        .set("queue.durability", "'interval'")
        .set("queue.interval", &format!("'{}ms'", INTERVAL.as_millis()));
    let offramp = world.start_as(&settings, |command| disk.under(command));
    let load = Load::start(&world, &offramp, 0, position(&disk));
    let began = Instant::now();
    assert!(wait_until(LIMIT, || began.elapsed() > 3 * SLACK && load.answered() > 200));
    offramp.kill();
    let (answers, _) = load.end(&world);

    let diary = disk.read();
    let allowed = INTERVAL + diary.longest_sync() + SLACK;
    let late = answers.iter().find(|answer| answer.at > answers[0].at + 2 * SLACK).expect("the clients talked for three seconds");
    for _ in 0..3 {
        let position = diary.any_position(late.position, &mut rng);
        let luck = Luck::any(&mut rng);
        let what = format!("cut at {position} of {}, {luck:?}", diary.end());
        let image = disk.cut(&diary, position, u64::MAX, luck, &mut rng);
        let there = messages_after(&world, &image, &what, Promised::NoGap);
        let before = diary.time(position) - allowed;
        let lost = missing(answers.iter().filter(|answer| answer.at < before), &there);
        assert!(lost.is_empty(), "{what}: of {} messages these are lost that are older than {allowed:?}: {lost:?}", there.len());
    }
}

/// The same on an ext4 that is shut down under offramp, as far as that is asked for.
#[test]
fn inv2_inv4_inv5_inv8_what_was_answered_outlives_lost_power_of_a_real_disk() {
    let Some(cuts) = number("OFFRAMP_POWER_CUTS") else { return };
    let mut rng = rng();
    let world = world();
    let volume = Volume::ext4(&world.dir().join("disk"), 512).unwrap();
    let settings = settings(&world, "disk/queue");
    let start = || world.start_as(&settings, |command| volume.enter(&command));
    let (mut answers, mut conversations): (Vec<Answer>, Vec<Conversation>) = (Vec::new(), Vec::new());
    let mut offramp = start();
    for cut in 1..=cuts {
        let load = Load::start(&world, &offramp, cut, || 0);
        let moment = rng.usize(CLIENTS..400);
        load.wait_for(moment, &offramp);
        let cut_at = SystemTime::now();
        volume.cut();
        offramp.kill();
        let (mut answered, mut talked) = load.end(&world);
        // What came later has passed a queue that failed: nobody promised anything.
        let late: Vec<Answer> = answered.extract_if(.., |answer| answer.at >= cut_at).collect();
        for conversation in &mut talked {
            let is_late = |number: &mut u64| {
                late.iter().any(|answer| answer.mark.session == conversation.name && answer.mark.number == *number)
            };
            conversation.failed.extend(conversation.answered.extract_if(.., is_late));
        }
        answers.extend(answered);
        conversations.extend(talked);

        volume.remount();
        offramp = start();
        let there = messages(&offramp, &format!("cut {cut}"), Promised::NoGap);
        let lost = missing(answers.iter(), &there);
        assert!(lost.is_empty(), "cut {cut}: of {} messages these are lost: {lost:?}", there.len());
    }
    let status =
        offramp.wait_for_status("drained", LIMIT + Duration::from_secs(10 * cuts), |status| status["ledger"]["pending"] == 0);
    world.assert_graph_holds(&conversations, &status);
    world.assert_sent_once();
}

/// The test of the tests: on a disk that says that it has synced and has not, they see what is lost.
#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let world = world();
    let dir = world.dir().join("queue");
    std::fs::create_dir(&dir).unwrap();
    let disk = Arc::new(Disk::new(&dir));
    let offramp = world.start_as(&settings(&world, "queue"), |command| disk.under(command));
    let lies_from = disk.position();
    let load = Load::start(&world, &offramp, 0, position(&disk));
    assert!(wait_until(LIMIT, || load.answered() >= 100));
    offramp.kill();
    let (answers, _) = load.end(&world);
    let diary = disk.read();
    let image = |lies_from| disk.cut(&diary, diary.end(), lies_from, Luck::NONE, &mut Rng::new());
    assert_eq!(missing(answers.iter(), &messages_after(&world, &image(u64::MAX), "an honest disk", Promised::NoGap)).len(), 0);
    assert_eq!(
        missing(answers.iter(), &messages_after(&world, &image(lies_from), "a liar", Promised::Balance)).len(),
        answers.len()
    );
}

/// The other test of the tests: nothing reaches the directory past the diary.
#[test]
fn the_diary_of_the_disk_explains_all_that_is_in_the_directory() {
    let world = world();
    let dir = world.dir().join("queue");
    std::fs::create_dir(&dir).unwrap();
    let disk = Disk::new(&dir);
    let mut offramp = world.start_as(&settings(&world, "queue"), |command| disk.under(command));
    for number in 0..20 {
        assert_eq!(exchange(&offramp, "s", &format!("{number}")).status, 200);
    }
    offramp.wait_for_delivery(20, LIMIT);
    assert!(offramp.stop().success());
    let diary = disk.read();
    let explained = disk.cut(&diary, diary.end(), u64::MAX, Luck::ALL, &mut Rng::new());
    assert_eq!(explained.differences(&Tree::of(&dir)), Vec::<String>::new());
}
