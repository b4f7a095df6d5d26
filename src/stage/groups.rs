//! Process groups of commands that run, so that none of them outlives this program by a second Ctrl-C.
use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

/// The groups that run; clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Groups(Arc<Mutex<BTreeSet<u32>>>);

impl Groups {
    /// Starts a command in a group of its own, which is killed when what is returned is dropped.
    pub(super) fn spawn(&self, command: &mut Command) -> io::Result<(Child, Group)> {
        // held meanwhile, so that none is started unseen
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.process_group(0).spawn()?;
        let id = child.id();
        groups.insert(id);
        Ok((child, Group { id, groups: self.clone() }))
    }

    /// Kills all of them.
    pub(super) fn kill(&self) {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        groups.iter().for_each(|id| kill(*id));
    }
}

/// A command and all that it started.
#[derive(Debug)]
pub(super) struct Group {
    id: u32,
    groups: Groups,
}

impl Group {
    /// Kills what is left of it, once.
    pub(super) fn kill(&self) {
        let mut groups = self.groups.0.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.remove(&self.id) {
            kill(self.id);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(unsafe_code, reason = "the standard library kills single processes only")]
fn kill(group: u32) {
    if let Ok(id) = libc::pid_t::try_from(group).map(|id| -id)
        && id < -1
    {
        // SAFETY: no memory is involved; a number is only reused once it went round all of them
        unsafe { libc::kill(id, libc::SIGKILL) };
    }
}
