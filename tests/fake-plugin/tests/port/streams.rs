//! Streams are whole and in order, block only themselves, and what floods is bounded.

use super::support::*;
use alpine_provider_api::*;
use std::time::Duration;
use tokio::sync::mpsc;

const MIB: usize = 1024 * 1024;

/// What `odd stream` sends.
fn expected(at: usize) -> u8 {
    let at = at % (64 * 1024);
    (at / 251 + at) as u8
}

#[tokio::test]
async fn a_stream_is_whole_and_in_order() {
    for by in ALL {
        let behind = Behind::new(by);
        let (reply, events) = behind.odd(&["stream", "8"]).await;
        reply.unwrap();
        let mut at = 0;
        for event in events {
            let CallEvent::Stdout(bytes) = event else {
                panic!("{event:?}");
            };
            for byte in bytes {
                assert_eq!(byte, expected(at), "{by:?} at {at}");
                at += 1;
            }
        }
        assert_eq!(at, 8 * MIB, "{by:?}");
    }
}

#[tokio::test]
async fn a_reader_that_stalls_blocks_its_own_stream_alone() {
    for by in ALL {
        let behind = Behind::new(by);
        let (events, mut said) = mpsc::channel(1);
        let (_input, none) = mpsc::channel(1);
        let call = Call::new(meta(0), events);
        let stalled = behind.provider.exec(&call, odd(&["stream", "64"]), none);
        tokio::pin!(stalled);
        let others = async {
            for _ in 0..20 {
                behind.odd(&["stream", "1"]).await.0.unwrap();
            }
        };
        tokio::select! {
            reply = &mut stalled => panic!("{by:?}: {reply:?}"),
            () = others => {}
        }
        let mut bytes = 0;
        let mut reply = None;
        while reply.is_none() || !said.is_empty() {
            tokio::select! {
                done = &mut stalled, if reply.is_none() => reply = Some(done),
                Some(event) = said.recv() => if let CallEvent::Stdout(more) = event {
                    bytes += more.len();
                },
            }
        }
        reply.unwrap().unwrap();
        assert_eq!(bytes, 64 * MIB, "{by:?}");
    }
}

#[tokio::test]
async fn input_arrives_whole_within_its_credit() {
    for by in ALL {
        let behind = Behind::new(by);
        let (events, mut said) = mpsc::channel(64);
        let (input, wanted) = mpsc::channel(4);
        let call = Call::new(meta(0), events);
        let ask = behind.provider.exec(&call, odd(&["swallow"]), wanted);
        let feed = async {
            for size in [1, 100_000, 3 * MIB, 64 * 1024] {
                input.send(ExecInput::Data(vec![7; size])).await.unwrap();
            }
            for _ in 0..5000 {
                input.send(ExecInput::Data(vec![7])).await.unwrap();
            }
            input.send(ExecInput::Eof).await.unwrap();
        };
        let (reply, ()) = tokio::join!(ask, feed);
        assert_eq!(reply.unwrap(), ExecReply::Exited(0));
        let total = 1 + 100_000 + 3 * MIB + 64 * 1024 + 5000;
        let expected = CallEvent::Stdout(total.to_string().into_bytes());
        assert_eq!(said.recv().await, Some(expected), "{by:?}");
    }
}

#[tokio::test]
async fn a_signal_arrives() {
    for by in ALL {
        let behind = Behind::new(by);
        let (input, wanted) = mpsc::channel(4);
        input.send(ExecInput::Signal(15)).await.unwrap();
        let call = Call::quiet(meta(0));
        let reply = behind.provider.exec(&call, odd(&["swallow"]), wanted).await;
        assert_eq!(reply.unwrap(), ExecReply::Signalled(15), "{by:?}");
    }
}

#[tokio::test]
async fn a_flood_of_news_and_logs_is_bounded_and_hinders_nobody() {
    for by in ALL {
        let behind = Behind::new(by);
        // Nobody reads its news, while the others are answered.
        let (events, said) = mpsc::channel(4);
        let (_input, none) = mpsc::channel(1);
        let call = Call::new(meta(0), events);
        let flood = behind.provider.exec(&call, odd(&["flood"]), none);
        let others = async {
            for _ in 0..10 {
                behind.provider.describe().await.unwrap();
            }
        };
        let (reply, ()) = tokio::join!(flood, others);
        reply.unwrap();
        assert!(said.len() <= 4);
    }
}

#[tokio::test]
async fn a_caller_that_has_gone_ends_the_command() {
    for by in ALL {
        let behind = Behind::new(by);
        let (events, said) = mpsc::channel(1);
        drop(said);
        let (_input, none) = mpsc::channel(1);
        let call = Call::new(meta(0), events);
        let ask = behind.provider.exec(&call, odd(&["stream", "1024"]), none);
        let limit = Duration::from_secs(10);
        let reply = tokio::time::timeout(limit, ask).await.unwrap();
        assert_eq!(reply.unwrap_err().kind, ErrorKind::Cancelled, "{by:?}");
        behind.provider.describe().await.unwrap();
    }
}
