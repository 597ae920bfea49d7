//! Controllers, one folder per kind: plan, act, status.
