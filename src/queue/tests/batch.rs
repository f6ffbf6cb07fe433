//! Several episodes of a lane in one claim.

use super::*;

fn together(max: usize, batch: usize) -> ClaimRequest {
    ClaimRequest { batch, ..request(max) }
}

impl Bench {
    async fn claimed(&self, request: ClaimRequest) -> Vec<(u64, u32)> {
        let sink = self.queue.sink_id("a").unwrap();
        let claims = self.queue.claim(sink, request).await.unwrap().claims;
        claims.iter().map(|claim| (claim.seq, claim.attempts)).collect()
    }
}

#[tokio::test]
async fn inv5_a_claim_takes_what_is_consecutive_and_its_lane_is_claimed_to_the_last_of_them() {
    let bench = Bench::new(config());
    for n in 1..=5 {
        bench.append("s", n, &["a"]).unwrap();
    }
    let sink = bench.queue.sink_id("a").unwrap();
    let claims = bench.queue.claim(sink, together(9, 3)).await.unwrap().claims;
    assert_eq!(claims.iter().map(|c| c.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(claims.windows(2).all(|w| w[0].at < w[1].at), "event times of one call increase");
    assert_eq!(bench.queue.stats().sinks[0].in_flight, 3);
    for claim in [claims[2], claims[0]] {
        bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        assert_eq!(bench.claimed(together(9, 3)).await, [], "another one of them is under way");
    }
    assert_eq!(bench.queue.delete(Uuid::from_u128(2)).await, Ok(Deleted::InFlight));
    bench.queue.finish(claims[1], Finish::Retry { delay: 0, sent: Sent::No }, None);
    assert_eq!(bench.claimed(together(9, 3)).await, [(2, 2)], "what was tried in vain goes alone");
}

#[tokio::test]
async fn inv6_one_that_was_tried_in_vain_goes_with_nobody() {
    let bench = Bench::new(config());
    for n in 1..=5 {
        bench.append("s", n, &["a"]).unwrap();
    }
    let sink = bench.queue.sink_id("a").unwrap();
    let claims = bench.queue.claim(sink, together(9, 4)).await.unwrap().claims;
    let in_vain = Finish::Retry { delay: 0, sent: Sent::No };
    for (claim, finish) in claims.iter().zip([Finish::Uncount, in_vain, Finish::Uncount, Finish::Uncount]) {
        bench.queue.finish(*claim, finish, None);
    }
    for expected in [vec![(1, 1)], vec![(2, 2)], vec![(3, 1), (4, 1), (5, 1)]] {
        let claims = bench.queue.claim(sink, together(9, 4)).await.unwrap().claims;
        assert_eq!(claims.iter().map(|c| (c.seq, c.attempts)).collect::<Vec<_>>(), expected);
        for claim in claims {
            bench.queue.finish(claim, Finish::Delivered { confirmed_in: None }, None);
        }
    }
}

#[tokio::test]
async fn inv6_what_was_claimed_together_is_counted_and_goes_alone_after_a_restart() {
    let mut bench = Bench::new(config());
    for n in 1..=4 {
        bench.append("s", n, &["a"]).unwrap();
    }
    assert_eq!(bench.claimed(together(9, 3)).await, [(1, 1), (2, 1), (3, 1)]);
    bench.reopen(START);
    let sink = bench.queue.sink_id("a").unwrap();
    for seq in 1..=3 {
        let claims = bench.queue.claim(sink, together(9, 3)).await.unwrap().claims;
        assert_eq!(claims.iter().map(|c| (c.seq, c.attempts, c.sent)).collect::<Vec<_>>(), [(seq, 1, Sent::Began(START))]);
        bench.queue.finish(claims[0], Finish::Delivered { confirmed_in: None }, None);
    }
    bench.append("s", 5, &["a"]).unwrap();
    assert_eq!(bench.claimed(together(9, 3)).await, [(4, 1), (5, 1)]);
}

#[tokio::test]
async fn inv5_nothing_is_claimed_along_before_what_it_waits_for() {
    let bench = Bench::new(config());
    let lanes = bench.lanes("s", &["a"]);
    bench.append("s", 1, &["a"]).unwrap();
    let place = bench.queue.reserve();
    bench.queue.hold(&lanes, place, START + 1_000);
    bench.append("s", 2, &["a"]).unwrap();
    bench.append("t", 3, &["a"]).unwrap();
    assert_eq!(bench.claimed(together(9, 9)).await, [(1, 1), (4, 1)], "two lanes, and the first is held behind its head");
}
