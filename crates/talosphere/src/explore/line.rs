//! The controllers' way to the management API: it can be cut, and answers on it can be lost after the effect.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The way. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_cut: bool,
    /// Cancelled when the line is cut; replaced then.
    broken: CancellationToken,
    /// How many answers to changing requests are still to be lost.
    losses: u32,
}

/// What stops a request, or its answer.
pub(super) fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "the management API is out of reach")
}

/// The answer does not arrive.
pub(super) fn reset() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the answer of the management API is lost")
}

impl Line {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing passes any more; what is open breaks.
    pub fn cut(&self) {
        let broken = self.with(|state| {
            state.is_cut = true;
            std::mem::take(&mut state.broken)
        });
        broken.cancel();
    }

    /// Everything passes again.
    pub fn mend(&self) {
        self.with(|state| (state.is_cut, state.losses) = (false, 0));
    }

    /// The answers to the next `losses` changing requests do not arrive.
    pub fn lose(&self, losses: u32) {
        self.with(|state| state.losses = losses);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.with(|state| state.is_cut)
    }

    /// Whether this answer is lost.
    pub(super) fn takes_answer(&self, is_change: bool) -> bool {
        self.with(|state| {
            let is_lost = is_change && state.losses > 0;
            state.losses -= u32::from(is_lost);
            is_lost || state.is_cut
        })
    }

    /// An answer's body that breaks with the line.
    pub(super) fn carry<B>(&self, body: B) -> Carried<B> {
        let broken = self.with(|state| state.broken.clone());
        Carried { body, broken: Box::pin(broken.cancelled_owned()) }
    }
}

/// A body on the line.
pub struct Carried<B> {
    body: B,
    broken: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<B> Body for Carried<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.broken.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(reset())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(io::Error::other)))
    }
}
