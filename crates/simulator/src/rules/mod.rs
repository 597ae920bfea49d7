//! The rule checker: reads the world's truth after every event and says which safety rule is broken.
