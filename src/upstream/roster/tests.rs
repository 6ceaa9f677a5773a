use super::*;
use crate::upstream::{DnsQuery, Finder};

fn at(port: u16) -> SocketAddr {
    ([10, 0, 0, 1], port).into()
}

fn file(port: u16, weight: u16) -> EndpointSpec {
    EndpointSpec::new(at(port), weight)
}

fn dns(port: u16) -> EndpointSpec {
    EndpointSpec { origin: Origin::Dns, ..EndpointSpec::new(at(port), 1) }
}

fn weighs(weight: u16) -> Wanted {
    Wanted { weight: Some(weight), ..Wanted::default() }
}

fn drains() -> Wanted {
    Wanted { draining: Some(true), ..Wanted::default() }
}

/// The same roster with other words in the file.
fn reloaded(members: &Members, written: impl IntoIterator<Item = EndpointSpec>) -> Members {
    let (roster, found) = (Arc::clone(&members.roster), members.found.clone());
    Members { written: written.into_iter().collect(), roster, found }
}

fn looked_for() -> Arc<Found> {
    let query = DnsQuery::Addresses { name: "a".into(), port: 1 };
    Arc::new(Found::new(Finder::Dns { query, servers: Box::default() }))
}

/// Port, weight, whose word; a draining one's weight is told as below zero.
fn shown(members: &Members) -> Vec<(u16, i32, &'static str)> {
    let list = members.list(&members.lock());
    let show = |spec: &EndpointSpec| {
        let weight = i32::from(spec.weight);
        (spec.address.port(), if spec.draining { -weight } else { weight }, spec.origin.word())
    };
    list.iter().map(show).collect()
}

fn place(members: &Members, port: u16, wanted: &Wanted) -> bool {
    members.place(&mut members.lock(), at(port), wanted)
}

fn stale(members: &Members) -> Vec<u16> {
    let stale = members.forget_stale(&mut members.lock());
    stale.iter().map(SocketAddr::port).collect()
}

#[test]
fn changes_hold_until_the_file_has_another_word() {
    let members = Members::written([file(1, 1), file(2, 5)]);
    assert!(place(&members, 2, &drains()) && place(&members, 3, &weighs(7)));
    members.remove(&mut members.lock(), at(1));
    let changed = [(2, -5, "admin"), (3, 7, "admin")];
    assert_eq!(shown(&members), changed);

    let same = reloaded(&members, [file(1, 1), file(2, 5), file(4, 1)]);
    assert_eq!(stale(&same), [] as [u16; 0]);
    assert_eq!(shown(&same), [(2, -5, "admin"), (4, 1, "file"), (3, 7, "admin")]);

    // What a candidate finds is no change to what is in force.
    let other = reloaded(&members, [file(1, 2), file(3, 1)]);
    assert_eq!(shown(&other), [(1, 2, "file"), (3, 1, "file")]);
    assert_eq!(shown(&members), changed);
    assert_eq!(stale(&other), [1, 2, 3]);
    assert_eq!(shown(&members), [(1, 1, "file"), (2, 5, "file")]);
}

#[test]
fn one_that_is_as_the_file_says_again_is_the_files() {
    let members = Members::written([file(1, 1)]);
    assert!(place(&members, 1, &Wanted { zone: Some(Some("a".into())), ..weighs(3) }));
    assert!(place(&members, 1, &drains()));
    let spec = members.list(&members.lock()).remove(0);
    assert_eq!((spec.weight, spec.zone.as_deref(), spec.draining), (3, Some("a"), true));
    assert!(place(&members, 1, &Wanted { draining: Some(false), zone: Some(None), ..weighs(1) }));
    assert_eq!(shown(&members), [(1, 1, "file")]);
    // One that was added and is removed leaves nothing.
    assert!(place(&members, 2, &Wanted::default()));
    members.remove(&mut members.lock(), at(2));
    assert!(members.lock().changes.is_empty());
}

#[test]
fn what_is_found_stands_beside_the_file() {
    let members = Members { found: Some(looked_for()), ..Members::written([file(2, 5)]) };
    assert_eq!(shown(&members), [(2, 5, "file")]);
    let found = members.found.as_ref().unwrap();
    found.answered("u", vec![dns(1), dns(2), dns(3)]);
    assert_eq!(shown(&members), [(2, 5, "file"), (1, 1, "dns"), (3, 1, "dns")]);
    assert!(place(&members, 1, &drains()));
    members.remove(&mut members.lock(), at(3));
    assert_eq!(shown(&members), [(2, 5, "file"), (1, -1, "admin")]);
    found.answered("u", vec![dns(3)]);
    assert_eq!((stale(&members), shown(&members)), (vec![1], vec![(2, 5, "file")]));
    found.answered("u", vec![dns(1)]);
    assert_eq!((stale(&members), shown(&members)), (vec![3], vec![(2, 5, "file"), (1, 1, "dns")]));
}

#[test]
fn before_an_answer_changes_wait() {
    let members = Members { found: Some(looked_for()), ..Members::default() };
    members.found.as_ref().unwrap().answered("u", vec![dns(1), dns(2)]);
    assert!(place(&members, 1, &drains()));
    let other = Members { found: Some(looked_for()), ..reloaded(&members, []) };
    assert_eq!((stale(&other), shown(&other)), (vec![], vec![]));
    other.found.as_ref().unwrap().answered("u", vec![dns(1)]);
    assert_eq!((stale(&other), shown(&other)), (vec![], vec![(1, -1, "admin")]));
    // Nobody looks for endpoints any more.
    let none = Members { found: None, ..reloaded(&members, []) };
    assert_eq!((stale(&none), shown(&none)), (vec![1], vec![]));
}

#[test]
fn there_is_room_for_so_many() {
    let most = u16::try_from(MOST_ENDPOINTS).unwrap();
    let members = Members::written((1..=most).map(|port| file(port, 1)));
    assert!(!place(&members, most + 1, &weighs(1)) && place(&members, 1, &weighs(2)));
    members.remove(&mut members.lock(), at(7));
    assert!(place(&members, most + 1, &weighs(1)));
}

#[test]
fn what_is_known_of_an_endpoint_lives_as_long_as_somebody_holds_it() {
    let members = Members::default();
    let now = Instant::now();
    let first = members.lock().standing(at(1), now);
    assert!(Arc::ptr_eq(&first, &members.lock().standing(at(1), now)));
    members.lock().sweep();
    assert_eq!(members.lock().standings.len(), 1);
    drop(first);
    members.lock().sweep();
    assert!(members.lock().standings.is_empty());
}
