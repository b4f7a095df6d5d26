//! Exit codes of what only tasks and their database fail with.
use super::super::Exit;
use crate::store::StoreError;
use crate::task::{TaskError, TaskStoreError};

/// Of errors that only tasks have.
pub(in super::super) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    let of_rows = match error.downcast_ref() {
        Some(TaskError::Store(error)) => Some(error),
        Some(TaskError::Unknown { .. } | TaskError::Parameters { .. } | TaskError::Cron { .. }) => {
            return Some(Exit::USAGE);
        }
        Some(TaskError::Definition { .. }) => return Some(Exit::CONFIGURATION),
        Some(TaskError::Log { .. }) => return Some(Exit::SERVICE),
        None => error.downcast_ref::<TaskStoreError>(),
    };
    match of_rows? {
        TaskStoreError::IdTaken(_) | TaskStoreError::NotFound(_) | TaskStoreError::WrongStatus { .. } => {
            Some(Exit::USAGE)
        }
        TaskStoreError::Store(error) => code_of_state(error),
    }
}

/// Of the database that holds state, wherever it was asked.
pub(in super::super) fn state_exit_code(error: &anyhow::Error) -> Option<u8> {
    code_of_state(error.chain().find_map(|cause| cause.downcast_ref::<StoreError>())?)
}

fn code_of_state(error: &StoreError) -> Option<u8> {
    match error {
        StoreError::Location(_) | StoreError::Folder { .. } | StoreError::NotOurs { .. } => {
            Some(Exit::CONFIGURATION)
        }
        StoreError::Sqlite { .. } | StoreError::Postgres { .. } => Some(Exit::SERVICE),
        StoreError::Client(_) => None,
    }
}
