//! The wire format of protobuf: tags, numbers and runs of bytes. Nothing is copied, nothing is trusted.

use super::ProtobufError;

/// One value on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wire<'a> {
    /// A number of variable length.
    Number(u64),
    /// A text, a message or bytes.
    Bytes(&'a [u8]),
    /// A number of four or eight bytes; no field that is read has one.
    Fixed,
}

impl<'a> Wire<'a> {
    /// The bytes of a field that must have some.
    pub(super) fn bytes(self, field: &str) -> Result<&'a [u8], ProtobufError> {
        match self {
            Wire::Bytes(bytes) => Ok(bytes),
            Wire::Number(_) | Wire::Fixed => Err(ProtobufError::WireType(field.to_owned())),
        }
    }

    /// The number of a field that must have one.
    pub(super) fn number(self, field: &str) -> Result<i64, ProtobufError> {
        match self {
            Wire::Number(number) => Ok(number as i64),
            Wire::Bytes(_) | Wire::Fixed => Err(ProtobufError::WireType(field.to_owned())),
        }
    }
}

/// Reads the fields of one message, in order.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn damaged(&self) -> ProtobufError {
        ProtobufError::Damaged(self.at)
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.damaged())?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length)).ok_or_else(|| self.damaged())?;
        let taken = self.bytes.get(self.at..end).ok_or_else(|| self.damaged())?;
        self.at = end;
        Ok(taken)
    }

    /// The next field's number and value; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtobufError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| self.damaged())?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err(self.damaged()),
        };
        Ok(Some((number, wire)))
    }
}
