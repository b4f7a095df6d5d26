//! What a folder, or a bucket, needs to be to hold an archive.
use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use object_store::path::Path as StoragePath;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use super::super::units::bytes_text;
use super::Checks;
use crate::client::{ClientError, OBJECT_STORAGE, StorageFault, condensed, open_store};

/// A group that does not fit is discarded, and the run ends.
const MIN_FREE_BYTES: u64 = 256 << 20;
/// Some hours of a busy source.
const GOOD_FREE_BYTES: u64 = 4 << 30;

pub(super) async fn check(location: &str, checks: &mut Checks) {
    match open_store(location) {
        Ok((store, url)) => match url.to_file_path() {
            Ok(folder) => check_folder(location, &folder, checks),
            Err(()) => check_bucket(location, store.as_ref(), checks).await,
        },
        Err(error) => checks.error(error),
    }
}

/// What a writer does: put where nothing is, read it back, list, remove. Of two exclusive puts only one may win, or
/// two writers could commit the same.
async fn check_bucket(location: &str, store: &dyn ObjectStore, checks: &mut Checks) {
    let path = StoragePath::from(format!("_pipeline-doctor-{}", uuid::Uuid::now_v7()));
    let tried = async {
        store.put_opts(&path, "1".into(), PutMode::Create.into()).await?;
        let again = store.put_opts(&path, "2".into(), PutMode::Create.into()).await;
        let is_exclusive = matches!(again, Err(Error::AlreadyExists { .. } | Error::Precondition { .. }));
        store.get(&path).await?.bytes().await?;
        store.list_with_delimiter(None).await?;
        store.delete(&path).await?;
        Ok(is_exclusive)
    };
    match tried.await.map_err(condensed) {
        Ok(true) => checks.ok(format!("{location} can be written, read and listed")),
        Ok(false) => checks.fail(
            format!("{location} takes a second exclusive put of one name"),
            "use a storage with conditional put (If-None-Match): without it two writers overwrite each other",
        ),
        Err(cause) => match StorageFault::of(&cause) {
            Some(fault) if fault.is_passing() => {
                checks.error(ClientError::Unreachable {
                    service: OBJECT_STORAGE,
                    address: location.to_owned(),
                    source: cause.into(),
                });
            }
            fault => {
                let remedy = fault.map_or("check the storage", StorageFault::remedy);
                checks.fail(format!("{location}: {cause}"), remedy);
            }
        },
    }
}

fn check_folder(location: &str, folder: &Path, checks: &mut Checks) {
    // a folder that is not there yet is made in the nearest one that is
    let is_there = folder.is_dir();
    let Some(nearest) = folder.ancestors().find(|folder| folder.is_dir()) else {
        return checks.fail(format!("{location}: no folder above it exists"), "name another");
    };
    let place = match is_there {
        true => location.to_owned(),
        false => format!("{location} is not there yet; {}", nearest.display()),
    };
    match try_to_write(nearest) {
        Ok(()) => checks.ok(format!("{place} can be written")),
        Err(cause) => checks.fail(
            format!("{place} cannot be written: {cause}"),
            "give this user access to it, or name another by --into",
        ),
    }
    match free_bytes(nearest) {
        Ok(free) if free < MIN_FREE_BYTES => {
            checks.fail(format!("{} are free", bytes_text(free)), "free space");
        }
        Ok(free) if free < GOOD_FREE_BYTES => {
            checks.warn(format!("{} are free", bytes_text(free)), "free space soon");
        }
        Ok(free) => checks.ok(format!("{} are free", bytes_text(free))),
        Err(cause) => checks.warn(format!("free space is not known: {cause}"), "look with `df`"),
    }
}

/// Permission bits do not tell of read-only file systems, quotas and other rules.
fn try_to_write(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".pipeline-doctor-{}", uuid::Uuid::now_v7()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

/// What this user may still write.
#[expect(unsafe_code, reason = "the standard library does not tell the free space")]
fn free_bytes(folder: &Path) -> io::Result<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes())?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero, and there is room for what is written.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was filled, as the call did not fail.
    let found = unsafe { found.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "their types differ between systems")]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}
