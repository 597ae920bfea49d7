//! The lines of a watch: what happened, and the text of the object, which is read no further than is asked.
//!
//! Servers write `{"type":"MODIFIED","object":{...}}`, a line each, without spaces: the object's text is then what stands between, and
//! is not gone through to find its end. Any other spelling is read the long way.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io::ErrorKind;

use futures::{AsyncBufRead, AsyncBufReadExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::Status;
use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::key::ObjectKey;

/// How deep an error's causes are looked at.
const DEPTH: usize = 16;

/// Reads the lines of one watch.
pub(super) struct Frames<R> {
    reader: R,
    line: Vec<u8>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub change: Cow<'a, str>,
    pub object: &'a [u8],
}

impl<R: AsyncBufRead + Unpin> Frames<R> {
    pub fn new(reader: R) -> Self {
        Self { reader, line: Vec::new() }
    }

    /// The next line; none at the end, also when the stream broke off in the middle of one.
    ///
    /// # Errors
    /// When the stream fails otherwise, or a line is none of a watch; with the server's own words where the line is its Status.
    pub async fn next(&mut self) -> Result<Option<Frame<'_>>, kube::Error> {
        loop {
            self.line.clear();
            match self.reader.read_until(b'\n', &mut self.line).await {
                Ok(_) => {}
                Err(error) if is_end(&error) => return Ok(None),
                Err(error) => return Err(kube::Error::ReadEvents(error)),
            }
            if self.line.is_empty() {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        Frame::parse(self.line.trim_ascii())
    }
}

/// Whether an error only says that the stream ended early, as it does when a server or a proxy goes away.
fn is_end(error: &std::io::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    for _ in 0..DEPTH {
        let Some(error) = cause else { return false };
        if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof) {
            return true;
        }
        if error.to_string().contains("unexpected EOF during chunk") {
            return true;
        }
        cause = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

#[derive(Deserialize)]
struct Spelled<'a> {
    #[serde(rename = "type", borrow)]
    change: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

impl<'a> Frame<'a> {
    fn parse(line: &'a [u8]) -> Result<Option<Self>, kube::Error> {
        if let Some(frame) = Self::plain(line) {
            return Ok(Some(frame));
        }
        match serde_json::from_slice::<Spelled<'a>>(line) {
            Ok(Spelled { change, object }) => Ok(Some(Self { change, object: object.get().as_bytes() })),
            Err(error) if error.is_eof() => Ok(None),
            Err(error) => Err(match serde_json::from_slice::<Status>(line) {
                Ok(status) => kube::Error::Api(Box::new(status)),
                Err(_) => kube::Error::SerdeError(error),
            }),
        }
    }

    /// The line as servers write it. An object that is cut short does not end in two braces.
    fn plain(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"type\":\"")?;
        let end = rest.iter().position(|byte| !byte.is_ascii_uppercase())?;
        let (change, rest) = rest.split_at(end);
        let object = rest.strip_prefix(b"\",\"object\":")?.strip_suffix(b"}")?;
        if !object.starts_with(b"{") || !object.ends_with(b"}") {
            return None;
        }
        Some(Self { change: Cow::Borrowed(std::str::from_utf8(change).ok()?), object })
    }

    /// The object, read whole.
    ///
    /// # Errors
    /// When it is no object of this kind.
    pub fn read<T: Deserialize<'a>>(&self) -> Result<T, kube::Error> {
        serde_json::from_slice(self.object).map_err(kube::Error::SerdeError)
    }

    /// The object's metadata, which stand near its beginning: nothing behind them is read.
    ///
    /// # Errors
    /// When it is no object.
    pub fn identity(&self) -> Result<Identity<'a>, kube::Error> {
        Identity::read(self.object).map_err(kube::Error::SerdeError)
    }
}

/// The part of an object's metadata that says which one it is, and in which state.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity<'a> {
    #[serde(borrow)]
    namespace: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    pub uid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub resource_version: Option<Cow<'a, str>>,
}

impl<'a> Identity<'a> {
    fn read(object: &'a [u8]) -> Result<Self, serde_json::Error> {
        let mut identity = None;
        let read = serde_json::Deserializer::from_slice(object).deserialize_map(ToMetadata(&mut identity));
        match (identity, read) {
            (Some(identity), _) => Ok(identity),
            (None, Ok(())) => Ok(Self::default()),
            (None, Err(error)) => Err(error),
        }
    }

    pub fn key(&self) -> ObjectKey {
        let namespace = self.namespace.as_deref().filter(|namespace| !namespace.is_empty()).map(str::to_owned);
        ObjectKey { namespace, name: self.name.clone().into_owned() }
    }
}

/// What a store goes by of an object that is kept as text: name, namespace, uid and resourceVersion. Nothing else of it is read.
///
/// # Errors
/// When it is no object.
pub fn identified(object: &str) -> Result<ObjectMeta, serde_json::Error> {
    let Identity { namespace, name, uid, resource_version } = Identity::read(object.as_bytes())?;
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    Ok(ObjectMeta {
        name: Some(name.into_owned()),
        namespace: owned(namespace),
        uid: owned(uid),
        resource_version: owned(resource_version),
        ..ObjectMeta::default()
    })
}

/// Gives up with an error once the metadata are read.
struct ToMetadata<'s, 'a>(&'s mut Option<Identity<'a>>);

impl<'a> Visitor<'a> for ToMetadata<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(field) = map.next_key::<Cow<'a, str>>()? {
            if field == "metadata" {
                *self.0 = Some(map.next_value()?);
                return Err(M::Error::custom("the rest is not read"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;
    use serde_json::{Value, json};

    use super::*;

    fn all(text: &str) -> Result<Vec<(String, Value)>, kube::Error> {
        block_on(async {
            let mut frames = Frames::new(Cursor::new(text.as_bytes().to_vec()));
            let mut told = Vec::new();
            while let Some(frame) = frames.next().await? {
                told.push((frame.change.to_string(), frame.read()?));
            }
            Ok(told)
        })
    }

    #[test]
    fn every_spelling_of_a_line_is_read() {
        let object = json!({"kind": "K", "metadata": {"name": "n"}, "text": "}\"}"});
        let text = format!(
            "{{\"type\":\"ADDED\",\"object\":{object}}}\r\n\n{{ \"object\": {object}, \"type\": \"DELETED\" }}\n{{\"type\":\"MODIFIED\",\"object\":{object} }}"
        );
        let told: Vec<(String, Value)> = ["ADDED", "DELETED", "MODIFIED"].map(|change| (change.to_owned(), object.clone())).into();
        assert_eq!(all(&text).unwrap(), told);
    }

    #[test]
    fn a_line_that_is_cut_short_is_the_end() {
        let line = r#"{"type":"ADDED","object":{"metadata":{"name":"n"},"spec":{"a":1}}}"#;
        assert_eq!(all(line).unwrap().len(), 1);
        for cut in 1..line.len() {
            let told = all(&line[..cut]);
            assert!(matches!(&told, Ok(told) if told.is_empty()) || told.is_err(), "{} was read as {told:?}", &line[..cut]);
        }
    }

    #[test]
    fn what_is_no_event_is_told_in_the_servers_words() {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "gone by", "reason": "Expired", "code": 410});
        assert!(matches!(all(&format!("{status}\n")), Err(kube::Error::Api(status)) if status.code == 410));
        assert!(matches!(all("[1]\n"), Err(kube::Error::SerdeError(_))));
        assert!(all("{\"type\":\"ADDED\",\"object\":{\"a\":}}\n").is_err());
    }

    fn identified(object: &str) -> Result<(ObjectKey, Option<String>, Option<String>), kube::Error> {
        let identity = Frame { change: Cow::Borrowed("ADDED"), object: object.as_bytes() }.identity()?;
        let owned = |text: &Option<Cow<'_, str>>| text.as_deref().map(str::to_owned);
        Ok((identity.key(), owned(&identity.uid), owned(&identity.resource_version)))
    }

    #[test]
    fn an_object_is_known_by_its_metadata_wherever_they_stand() {
        let metadata = r#""metadata":{"labels":{"a":"b"},"uid":"u-\u0031","name":"n","resourceVersion":"7","namespace":""}"#;
        let known = (ObjectKey::cluster_scoped("n"), Some("u-1".to_owned()), Some("7".to_owned()));
        for text in [
            format!(r#"{{"kind":"K","apiVersion":"v1",{metadata},"spec":{{"metadata":{{"name":"other"}}}}}}"#),
            format!(r#"{{"spec":{{"metadata":{{"name":"other"}}}},{metadata}}}"#),
        ] {
            assert_eq!(identified(&text).unwrap(), known);
        }
        assert!(identified("[1]").is_err() && identified(r#"{"metadata": 3}"#).is_err());
        assert_eq!(identified(r#"{"kind": "K"}"#).unwrap().0, ObjectKey::cluster_scoped(""));
    }

    #[test]
    fn a_stream_that_ends_early_is_told_from_one_that_fails() {
        let early = std::io::Error::other(std::io::Error::other(std::io::Error::from(ErrorKind::UnexpectedEof)));
        assert!(is_end(&early) && is_end(&std::io::Error::other("unexpected EOF during chunk size line")));
        assert!(!is_end(&std::io::Error::from(ErrorKind::ConnectionReset)));
    }
}
