//! A queue is opened, time goes by, and its process dies.

use super::*;

impl Run {
    pub(super) fn open(&mut self) {
        for attempt in 0.. {
            let store = Store::paced(self.disk.clone(), self.pace).map_err(TxnError::from);
            match store.and_then(|s| Queue::inline_on(s, &self.config, &["a", "b"], Clock::Told(self.clock))) {
                Ok(queue) => return self.queue = Some(queue),
                Err(error) => assert!(attempt < 5, "inv8: the queue can't be opened: {error}"),
            }
            if attempt == 3 {
                self.disk.mend();
            }
        }
    }

    /// Tells the queue how the sinks are configured: what a drain says until it is heard, here without a disk that may fail.
    pub(super) fn configure(&mut self) {
        if let WriterSide::Inline(writer) = &mut *self.queue().writer() {
            for (id, settings) in &self.settings {
                writer.engine.sink(*id).settings = *settings;
            }
        }
        for oracle in &mut self.now {
            oracle.settings = self.settings.clone();
        }
    }

    pub(super) fn tick(&mut self, by: u64) -> Test {
        self.clock.fetch_add(by, Ordering::Relaxed);
        let lost = self.queue().stats().state == "degraded";
        self.tidy();
        if self.sick && !self.disk.is_bad() {
            for _ in 0..3 {
                self.tidy();
            }
            prop_assert_ne!(self.queue().stats().state, "degraded", "inv3: the disk is well again, and the queue is not");
            self.sick = false;
            self.reopened(true);
        } else {
            self.reopened(lost);
        }
        let well = !self.sick && self.now.len() == 1;
        let given = Given { now: self.ms(), limits: &self.config, lanes: &self.lanes, places: &self.places };
        let tidied: Vec<_> = self
            .now
            .iter()
            .cloned()
            .map(|mut oracle| {
                oracle.disk.tidy(&given);
                oracle
            })
            .collect();
        if well {
            self.now = tidied; // inv9: what has to expire does
        } else {
            self.now.extend(tidied);
            self.dedup();
        }
        Ok(())
    }

    fn tidy(&self) {
        if let WriterSide::Inline(writer) = &mut *self.queue().writer() {
            writer.tidy();
        }
    }

    /// The store may have been opened again by itself: what was not synced may be gone.
    fn reopened(&mut self, lost: bool) {
        if lost {
            let oracle = self.now[0].clone();
            self.now.extend(self.past.iter().map(|disk| Oracle { disk: disk.clone(), ..oracle.clone() }));
            if self.config.durability != Durability::Sync {
                self.times = None;
            }
        }
        self.tidied = true;
    }

    pub(super) fn sync(&mut self) -> bool {
        if let WriterSide::Inline(writer) = &mut *self.queue().writer() {
            let durability = std::mem::replace(&mut writer.durability, Durability::Interval(Duration::ZERO));
            writer.commit(Vec::new());
            writer.durability = durability;
        }
        !self.sick && self.config.durability != Durability::Sync
    }

    pub(super) fn restart(&mut self, power: Option<u8>, clock: i64) {
        self.queue = None;
        let lost = power.is_some() || std::mem::replace(&mut self.scarred, self.sick);
        if let Some(keep) = power {
            self.disk.power(keep);
        }
        self.clock.store(self.ms().saturating_add_signed(clock).max(START - 10 * DAY), Ordering::Relaxed);
        self.open();
        for oracle in &mut self.now {
            oracle.claimed.clear();
            oracle.holds.clear();
        }
        if power.is_some() && !self.unreadable {
            // inv2: nothing but what was made stable, or came after that.
            let past = std::mem::take(&mut self.past);
            self.now = past.into_iter().map(|disk| Oracle { disk, ..Oracle::default() }).collect();
        }
        self.configure();
        self.reopened(lost);
        (self.claims, self.reserved) = (Vec::new(), Vec::new());
        self.last = 0;
        self.unreadable = true; // until it is looked at
    }
}
