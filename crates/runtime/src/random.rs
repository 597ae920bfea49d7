//! Randomness, handed in. One source per actor, derived by label, so that a draw added in one place shifts no other's.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::{Infallible, Rng, SeedableRng, TryCryptoRng, TryRng};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Letters and digits of generated Kubernetes names: no vowels and no look-alikes, as upstream's `rand.String`.
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A source of random bytes. Cheap to clone; clones share the stream.
#[derive(Clone)]
pub struct Random {
    seed: [u8; 32],
    stream: Arc<Mutex<ChaCha20Rng>>,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

impl Random {
    /// Seeded from the operating system.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn system() -> std::io::Result<Self> {
        let mut seed = [0; 32];
        #[allow(clippy::disallowed_methods)] // the one place that asks the operating system
        getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
        Ok(Self::from_seed(seed))
    }

    /// The same bytes for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self::from_seed(Sha256::digest(seed.to_be_bytes()).into())
    }

    fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed, stream: Arc::new(Mutex::new(ChaCha20Rng::from_seed(seed))) }
    }

    /// An independent source for the actor called `label`.
    pub fn child(&self, label: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(label.as_bytes());
        Self::from_seed(hash.finalize().into())
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number in `0..bound`, unbiased. Zero when `bound` is zero.
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let draw = u64::from_be_bytes(self.bytes());
            if draw < limit {
                return draw % bound;
            }
        }
    }

    /// A random (version 4) UUID.
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }

    /// A suffix of `length` characters as the API server puts behind `generateName`.
    pub fn name_suffix(&self, length: usize) -> String {
        self.characters(length, NAME_ALPHABET)
    }

    /// `length` characters drawn from `alphabet` (ASCII).
    pub fn characters(&self, length: usize, alphabet: &[u8]) -> String {
        let bound = u64::try_from(alphabet.len()).unwrap_or(0);
        (0..length)
            .filter_map(|_| usize::try_from(self.below(bound)).ok().and_then(|i| alphabet.get(i)))
            .map(|byte| char::from(*byte))
            .collect()
    }

    /// `duration` lengthened by up to `share` of itself.
    pub fn jitter(&self, duration: Duration, share: f64) -> Duration {
        #[allow(clippy::cast_precision_loss)]
        let fraction = self.below(1 << 20) as f64 / f64::from(1 << 20);
        duration.mul_f64(1.0 + share * fraction)
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_be_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_be_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Random {}
