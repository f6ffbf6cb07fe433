use serde_json::{Value, json};

use super::*;

fn phase(requests: u64, failed: u64, seconds: f64, ms: [f64; 4]) -> Phase {
    let errors = (failed > 0).then(|| ("HTTP 504".to_owned(), failed)).into_iter().collect();
    let [mean, p50, p95, p99] = ms;
    Phase {
        requests,
        errors,
        error_percent: rounded(100.0 * float(failed) / float(requests)),
        seconds,
        requests_per_second: rounded(per_second(requests, seconds)),
        latency_ms: Latency { mean, p50, p95, p99, max: p99 },
    }
}

fn report() -> Report {
    let claim = |text: &str, against: &[&str]| Claim {
        claim: text.to_owned(),
        holds: against.is_empty(),
        against: against.iter().map(|&text| text.to_owned()).collect(),
    };
    let ledger = Ledger { captured: 1000, delivered: 999, dead: 1, ..Ledger::default() };
    Report {
        passed: false,
        settings: Settings::of(&Options::default()),
        agent_alone: phase(1000, 0, 0.55, [51.2, 51.0, 52.3, 53.0]),
        inline_writes: phase(120, 70, 15.0, [7_210.0, 10_000.0, 10_050.0, 10_051.5]),
        inline_episodes_stored: 50,
        through_offramp: phase(1000, 0, 0.5625, [52.9, 52.5, 54.8, 56.25]),
        drain: Drain::new(999, Duration::from_millis(20_950), None),
        ledger: ledger.into(),
        proof: vec![claim("the ledger balances", &[]), claim("everything captured was delivered", &["1 dead"])],
    }
}

#[test]
fn the_text_is_as_it_should_be() {
    let golden = "\
┌───────────────────────────────────────────────────────────────────────────────────────────┐
│                   requests   requests/s   error %      mean       p50       p95       p99 │
╞═══════════════════════════════════════════════════════════════════════════════════════════╡
│ agent alone          1,000        1,818       0.0   51.2 ms   51.0 ms   52.3 ms   53.0 ms │
│ inline writes          120          8.0      58.3    7.21 s   10.00 s   10.05 s   10.05 s │
│ through offramp      1,000        1,778       0.0   52.9 ms   52.5 ms   54.8 ms   56.2 ms │
└───────────────────────────────────────────────────────────────────────────────────────────┘

Inline, the agent writes each episode before it answers: 10 at a time, each within 10 s.
Of its 120 episodes 70 are lost (HTTP 504: 70).
Through offramp the p99 is 3.2 ms longer than that of the agent alone.

Drain   999 episodes in 20.9 s, 47.7 a second
Ledger  captured 1,000 = delivered 999 + dead 1 + purged 0 + expired 0 + pending 0 (gap 0)
Proof
  ✓ the ledger balances
  ✗ everything captured was delivered
      1 dead
";
    assert_eq!(report().text(false), golden);
}

#[test]
fn colour_touches_the_ticks_alone() {
    let (plain, colour) = (report().text(false), report().text(true));
    assert_eq!(colour.replace("\u{1b}[32m", "").replace("\u{1b}[31m", "").replace("\u{1b}[0m", ""), plain);
    assert!(colour.contains("\u{1b}[32m✓") && colour.contains("\u{1b}[31m✗"));
}

#[test]
fn why_it_gave_up_stands_below_the_drain() {
    let mut report = report();
    report.drain.gave_up = Some("nothing has moved for 38 s; sink graphiti is stalled".to_owned());
    assert!(report.text(false).contains("a second\n        gave up: nothing has moved for 38 s;"));
}

#[test]
fn the_json_has_its_stable_shape() {
    let value = serde_json::to_value(report()).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(
        keys(&value),
        [
            "passed",
            "settings",
            "agent_alone",
            "inline_writes",
            "inline_episodes_stored",
            "through_offramp",
            "drain",
            "ledger",
            "proof"
        ]
    );
    assert_eq!(
        value["inline_writes"],
        json!({
            "requests": 120, "errors": {"HTTP 504": 70}, "error_percent": 58.333, "seconds": 15.0, "requests_per_second": 8.0,
            "latency_ms": {"mean": 7210.0, "p50": 10000.0, "p95": 10050.0, "p99": 10051.5, "max": 10051.5},
        })
    );
    let ledger = json!({"captured": 1000, "delivered": 999, "dead": 1, "purged": 0, "expired": 0, "pending": 0, "gap": 0});
    assert_eq!(value["ledger"], ledger);
    let drain = json!({"delivered": 999, "seconds": 20.95, "delivered_per_second": 47.685, "gave_up": null});
    assert_eq!(value["drain"], drain);
    assert_eq!(value["proof"][1], json!({"claim": "everything captured was delivered", "holds": false, "against": ["1 dead"]}));
    assert_eq!(value["settings"]["write_delay_ms"], 2000);
}
