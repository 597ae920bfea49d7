//! Messages of vCenter's SOAP API, one codec for both sides.
