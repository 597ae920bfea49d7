//! The crate's tests against data from outside and its properties, in one binary.

#[cfg(test)]
mod exchange;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod properties;
