//! Every option of `parameters`.

use crate::ask::{Asked, ask, echo, upstream};
use crate::harness::{Gateway, Origin};

fn gateway(origin: &Origin, words: &str) -> Gateway {
    Gateway::start(&format!(
        "{}routes: [{{ name: all, path: '/users/{{id}}', filters: [{{ parameters: {{ {words} }} }}], upstream: echo }}]",
        upstream(origin)
    ))
}

/// The target that goes upstream, or what is wrong.
fn sent(gateway: &Gateway, target: &str) -> String {
    let answer = ask(gateway.address(), &format!("GET {target}"), "");
    match answer.status {
        200 => Asked::of(&answer).target,
        400 => {
            assert_eq!(answer.code(), "bad_parameters");
            answer.json()["detail"].as_str().unwrap().to_owned()
        }
        status => panic!("{status} for {target}"),
    }
}

#[test]
fn every_rule_of_a_query_parameter_counts() {
    let origin = echo();
    for (rule, good, bad, why) in [
        ("required: true", "?p=", "", "is missing"),
        ("type: integer", "?p=-7", "?p=7.5", "is not an integer"),
        ("type: number", "?p=7.5", "?p=seven", "is not a number"),
        ("type: boolean", "?p=true", "?p=1", "is neither true nor false"),
        ("type: integer, minimum: 1", "?p=1", "?p=0", "is below 1"),
        ("type: number, maximum: 1.5", "?p=1.5", "?p=1.6", "is above 1.5"),
        ("max_length: 2", "?p=%C3%A4%C3%B6", "?p=abc", "is longer than 2 characters"),
        ("pattern: '[a-z ]+'", "?p=a+b%20c", "?p=a1", "has not the form that it must have"),
        ("enum: [name, 1]", "?p=1", "?p=2", "is none of the values that it may have"),
        ("repeated: false", "?p=1", "?p=1&%70=2", "is there more than once"),
    ] {
        let gateway = gateway(&origin, &format!("query: {{ p: {{ {rule} }} }}"));
        assert_eq!(sent(&gateway, &format!("/users/1{good}")), format!("/users/1{good}"), "{rule}");
        assert_eq!(sent(&gateway, &format!("/users/1{bad}")), format!("query `p` {why}"), "{rule}");
    }
    let gateway = gateway(&origin, "query: { p: { type: integer, repeated: true } }");
    assert_eq!(sent(&gateway, "/users/1?p=1&p=2&q=%zz"), "/users/1?p=1&p=2&q=%zz");
    // Once, however often it is wrong.
    assert_eq!(sent(&gateway, "/users/1?p=1&p=x&p=y&p=2"), "query `p` is not an integer");
}

#[test]
fn parts_of_the_path_have_rules_too_and_all_that_is_wrong_is_told_at_once() {
    let origin = echo();
    let words = "path: { id: { type: integer, maximum: 99 } }, query: { a: { type: boolean }, b: { required: true } }";
    let gateway = gateway(&origin, words);
    assert_eq!(sent(&gateway, "/users/7?a=true&b=%3Cscript%3E"), "/users/7?a=true&b=%3Cscript%3E");
    let wrong = sent(&gateway, "/users/100?a=%3Cscript%3E");
    assert_eq!(wrong, "path `id` is above 99; query `a` is neither true nor false; query `b` is missing");
    assert_eq!(origin.requests().len(), 1);
    let verdicts =
        "portcullis_filter_verdicts_total{route=\"all\",filter=\"parameters\",verdict=\"bad_parameters\"}";
    assert_eq!(gateway.metric(verdicts), 1.0);
}

#[test]
fn defaults_are_added_and_unknown_parameters_are_what_the_configuration_says() {
    let origin = echo();
    let query = "query: { page: { type: integer, default: 1 }, q: { default: 'a b&c' } }";
    let open = gateway(&origin, query);
    assert_eq!(sent(&open, "/users/1"), "/users/1?page=1&q=a%20b%26c");
    assert_eq!(sent(&open, "/users/1?q=&x=1"), "/users/1?q=&x=1&page=1");
    assert_eq!(sent(&open, "/users/1?page=2&q=%2b"), "/users/1?page=2&q=%2b");
    let removing = gateway(&origin, "query: { q: {} }, unknown_query: remove");
    assert_eq!(sent(&removing, "/users/1?x=1&q=a+b&y"), "/users/1?q=a+b");
    assert_eq!(sent(&removing, "/users/1?x=1"), "/users/1");
    let refusing = gateway(&origin, "query: { q: {} }, unknown_query: refuse");
    assert_eq!(sent(&refusing, "/users/1?q=1"), "/users/1?q=1");
    assert_eq!(sent(&refusing, "/users/1?sort=1&x=2"), "query `sort` is not known here");
    assert_eq!(sent(&refusing, "/users/1?%3Cb%3E=1"), "query `…` is not known here");
}

#[test]
fn what_filters_before_it_took_out_stays_out() {
    let origin = echo();
    let gateway = Gateway::start(&format!(
        "{}consumers: [{{ name: mobile, api_keys: [a-key-of-the-mobile-app] }}]\n\
         filters: [{{ parameters: {{ unknown_query: remove, query: {{ page: {{}}, apikey: {{}} }} }} }}]\n\
         routes: [{{ name: all, path: /a, upstream: echo, filters: [\
           {{ api_key: {{ from: [\"query:apikey\"] }} }},\
           {{ parameters: {{ unknown_query: refuse, query: {{ page: {{}}, limit: {{ default: \"10\" }} }} }} }}] }}]",
        upstream(&origin)
    ));
    let target = "/a?apikey=a-key-of-the-mobile-app&admin=1&page=2";
    assert_eq!(sent(&gateway, target), "/a?page=2&limit=10");
}
