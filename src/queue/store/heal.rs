//! What becomes of a store that has failed: it starts afresh from what is on the disk.
//!
//! An engine that has met an error of the disk is of no use any more, so it is let go and the directory is opened anew. A call that doesn't
//! return is another matter: the engine's lock on its files goes only with the engine. Then a small file is written beside it, synced and
//! removed. If that hangs as well, the disk is stuck; there is nothing to do but wait, and once the call returns, whatever it says, the
//! directory is opened anew. If the disk does answer, the engine is wedged: its files are copied to the next generation, which is opened and
//! takes over, and the engine is left behind with its thread, while its old files are emptied. Files that change while they are copied tell
//! that it isn't wedged but slow, and then it keeps its time.
//!
//! Either way a commit that was reported as failed may be there afterwards, as a whole: whoever reopens must read again what there is.

use std::sync::Arc;

use super::{Call, Commits, Current, Db, Disk, Generation, Side, Store, StoreError, keys, salvage};

/// How often the disk must have answered, and the call not returned: the writer asks once a second.
const PROBES: u32 = 5;

/// What of a healing takes its time.
pub enum Healing {
    /// Does the disk answer?
    Probing(Call<()>),
    /// The files of a wedged engine are copied.
    Copying(Call<Current>),
    Opening(Call<Current>),
}

impl Store {
    /// Starts afresh from what is on the disk, after an error. What was not synced may be gone. [`StoreError::Stuck`]: that takes its
    /// time, ask again.
    pub fn reopen(&self) -> Result<(), StoreError> {
        let side = &mut *self.side();
        let mut step = match side.healing.take() {
            Some(step) => step,
            None if self.guard.settled() => Healing::Opening(self.open_again(side)?),
            None => Healing::Probing(self.probe()?),
        };
        let limit = self.guard.limit();
        let opened = loop {
            step = match &step {
                Healing::Probing(probe) => match probe.wait(limit) {
                    None => break None,
                    Some(Err(error)) => return Err(error),
                    Some(Ok(())) if self.guard.settled() => Healing::Opening(self.open_again(side)?),
                    Some(Ok(())) if side.probes < PROBES => {
                        side.probes += 1;
                        return Err(StoreError::Stuck);
                    }
                    Some(Ok(())) => Healing::Copying(self.copy_wedged(side)?),
                },
                Healing::Copying(call) | Healing::Opening(call) => break call.wait(limit),
            };
        };
        let Some(opened) = opened else {
            side.healing = Some(step);
            return Err(StoreError::Stuck);
        };
        let former = std::mem::replace(&mut *self.current(), opened?);
        if matches!(step, Healing::Copying(_)) {
            self.guard.leave();
        }
        self.let_go(former.db);
        self.let_go(side.rewriting.forget());
        self.damage.is_over();
        side.commits = self.read(Commits::of)?;
        side.probes = 0;
        Ok(())
    }

    /// Whether nothing is committed before [`reopen`](Self::reopen).
    pub fn is_stuck(&self) -> bool {
        self.guard.is_stuck()
    }

    /// Ends an engine, which may block.
    pub(super) fn let_go(&self, db: Option<Arc<dyn Db>>) {
        if let Some(db) = db
            && let Err(error) = self.guard.beside(move || {
                drop(db);
                Ok(())
            })
        {
            tracing::warn!(%error, "the storage engine can't be let go in the background");
        }
    }

    fn probe(&self) -> Result<Call<()>, StoreError> {
        let disk = self.disk.clone();
        self.guard.beside(move || disk.probe())
    }

    fn open_again(&self, side: &mut Side) -> Result<Call<Current>, StoreError> {
        // To let go of an engine may block as well, and gives its lock on the directory back.
        let former = (self.current().db.take(), side.rewriting.forget());
        let (disk, generation, damage) = (self.disk.clone(), self.generation(), self.damage.again());
        self.guard.beside(move || {
            drop(former);
            salvage::find_again(&disk, generation, damage)
        })
    }

    /// The engine stays with its call, and so does its lock: so it goes on in a copy of the files.
    fn copy_wedged(&self, side: &mut Side) -> Result<Call<Current>, StoreError> {
        if !self.guard.may_leave() {
            tracing::error!("the storage engine has blocked too often: nothing is captured until offramp is started again");
            return Err(StoreError::Stuck);
        }
        let (disk, from, commits) = (self.disk.clone(), self.generation(), side.commits);
        let to = side.rewriting.next(from);
        tracing::error!(from, to, "the disk answers and the storage engine does not: going on in a copy of its files");
        self.guard.beside(move || take_over(&*disk, from, to, commits))
    }
}

/// Makes `to` from the files of `from`, whose engine is wedged.
fn take_over(disk: &dyn Disk, from: Generation, to: Generation, commits: Commits) -> Result<Current, StoreError> {
    let size = disk.size(from)?;
    if disk.room()?.free < size {
        return Err(StoreError::io("copying the store")(std::io::ErrorKind::StorageFull.into()));
    }
    disk.copy(from, to)?;
    match open_copy(disk, to, commits) {
        Ok(db) => {
            for former in disk.generations()?.into_iter().filter(|g| *g != to) {
                if let Err(error) = disk.abandon(former) {
                    tracing::warn!(%error, "the files of the engine that was left behind can't be removed");
                }
            }
            Ok(Current { generation: to, db: Some(db) })
        }
        Err(error) => {
            disk.remove(to)?;
            Err(error)
        }
    }
}

fn open_copy(disk: &dyn Disk, generation: Generation, commits: Commits) -> Result<Arc<dyn Db>, StoreError> {
    let db = disk.open(generation)?;
    if !(commits.synced..=commits.latest).contains(&Commits::of(&*db)?.latest) {
        return Err(StoreError::Damaged("a copy of the store lacks what was synced".into()));
    }
    // The call may have been the last one of a rewriting.
    db.apply(&[(keys::whole(), Some(Vec::new())), (keys::left(), None)].into())?;
    db.sync()?;
    Ok(db)
}
