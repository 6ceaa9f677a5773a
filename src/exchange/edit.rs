//! Changes of a response head.

use std::mem;

use http::HeaderMap;
use http::response::{Parts, Response};

use super::ResponseHeader;

/// Changes the fields of a response head. The engine's own ways read every name anew, and keep its spelling in a second map
/// if there is one. Names are spelled the common way afterwards.
pub fn edit<T>(head: &mut ResponseHeader, change: impl FnOnce(&mut HeaderMap) -> T) -> T {
    let nothing = Response::new(()).into_parts().0;
    let mut parts = Parts::from(mem::replace(head, ResponseHeader::from(nothing)));
    let changed = change(&mut parts.headers);
    *head = ResponseHeader::from(parts);
    changed
}
