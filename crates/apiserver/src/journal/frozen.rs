//! A journal that is read and never written: for a look at a state that somebody else may go on with.

use super::{Contents, Journal, JournalError, Record};

/// Reads another journal. Whatever the server over it does stays in its memory.
#[derive(Debug)]
pub struct Frozen<J>(pub J);

impl<J: Journal> Journal for Frozen<J> {
    fn load(&mut self) -> Result<Contents, JournalError> {
        self.0.load()
    }

    fn name(&mut self, _: &str) -> Result<(), JournalError> {
        Ok(())
    }

    fn append(&self, _: &[Record]) -> Result<(), JournalError> {
        Ok(())
    }

    fn is_inline(&self) -> bool {
        true
    }
}
