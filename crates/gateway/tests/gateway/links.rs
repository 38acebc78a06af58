use crate::session::{Reply, Session};
use alpine_provider_api::Secret;
use expect_test::expect;
use std::sync::atomic::Ordering;

fn cookie(reply: &Reply) -> String {
    let set = reply.header("set-cookie").unwrap();
    let (pair, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " HttpOnly; SameSite=Strict; Path=/");
    format!("Cookie: {pair}\r\n")
}

#[test]
fn a_link_becomes_a_cookie_once() {
    let session = Session::started(None);
    let link = format!("GET {}", session.mint(60_000));
    let reply = session.call_at(&session.own_host(), &link, "");
    expect![[r#"
        200
        cache-control: no-store
        referrer-policy: no-referrer
        <!doctype html><html lang="en"><meta charset="utf-8"><meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="0;url=/"><title>alpine</title><p><a href="/">Go on to the session</a></p></html>
    "#]]
    .assert_eq(&reply.told(&["cache-control", "referrer-policy"]));
    let cookie = cookie(&reply);
    assert_eq!(
        session
            .call_at(&session.own_host(), "GET /", &cookie)
            .status,
        200
    );
    // It lives on the session's own host: cookies of the others are shared by every port.
    assert_eq!(session.call("GET /", &cookie).status, 401);
    let again = session.call_at(&session.own_host(), &link, "");
    expect![[r#"
        410
        set-cookie: -
        this link was used already
        hint: run `alpine open ses_0123456789abcdef0123456789abcdef`
    "#]]
    .assert_eq(&again.told(&["set-cookie"]));
}

#[test]
fn late_and_unknown_links_say_so() {
    let session = Session::started(None);
    let link = format!("GET {}", session.mint(60_000));
    session.now_ms.store(60_000, Ordering::SeqCst);
    let late = session.call_at(&session.own_host(), &link, "");
    expect![[r#"
        410
        set-cookie: -
        this link has expired
        hint: run `alpine open ses_0123456789abcdef0123456789abcdef`
    "#]]
    .assert_eq(&late.told(&["set-cookie"]));
    for link in ["GET /_alpine/open?token=no", "GET /_alpine/open"] {
        let unknown = session.call_at(&session.own_host(), link, "");
        expect![[r#"
            403
            set-cookie: -
            there is no such link
            hint: run `alpine open ses_0123456789abcdef0123456789abcdef`
        "#]]
        .assert_eq(&unknown.told(&["set-cookie"]));
    }
}

#[test]
fn only_a_persons_own_get_uses_a_link_up() {
    let session = Session::started(None);
    let path = session.mint(60_000);
    let own = session.own_host();
    let get = format!("GET {path}");
    for (request, headers, status) in [
        (format!("HEAD {path}"), "", 405),
        (format!("POST {path}"), "Content-Length: 0\r\n", 405),
        (get.clone(), "Purpose: prefetch\r\n", 503),
        (get.clone(), "Sec-Purpose: prefetch;prerender\r\n", 503),
    ] {
        let reply = session.call_at(&own, &request, headers);
        assert_eq!(reply.status, status, "{request} {headers}");
        assert!(reply.header("set-cookie").is_none());
    }
    let elsewhere = session.call(&get, "");
    assert_eq!(elsewhere.status, 421);
    assert!(elsewhere.body.contains(&own));
    assert_eq!(session.call_at(&own, &get, "").status, 200);
}

#[test]
fn a_cookie_outlives_the_gateway_but_not_its_key() {
    let mut session = Session::started(None);
    let own = session.own_host();
    let link = format!("GET {}", session.mint(60_000));
    let cookie = cookie(&session.call_at(&own, &link, ""));
    session.stop().unwrap();
    session.start();
    assert_eq!(session.call_at(&own, "GET /", &cookie).status, 200);
    // The book is the supervisor's: the link stays used.
    assert_eq!(session.call_at(&own, &link, "").status, 410);
    session.stop().unwrap();
    session.config.cookie_key = Secret::new("another".to_owned());
    session.start();
    assert_eq!(session.call_at(&own, "GET /", &cookie).status, 401);
}
