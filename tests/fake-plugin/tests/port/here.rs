//! A library in this process and nothing else, so that a checker of memory sees both sides of the C boundary.

use super::methods::ask;
use super::support::*;
use alpine_provider_api::*;

#[tokio::test]
async fn both_sides_of_the_boundary_in_one_process() {
    for _ in 0..2 {
        let behind = Behind::new(By::InProcess);
        let mut object = String::new();
        for method in Method::ALL {
            let reply = ask(&behind.provider, method, &object).await;
            if let Some(id) = reply["durable_object_id"].as_str() {
                object = id.to_owned();
            }
        }
        let error = behind.odd(&["panic"]).await.0.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
        let error = behind.odd(&["large"]).await.0.unwrap_err();
        assert_eq!(error.message.len(), 32 * 1024);
        behind.odd(&["log", "a line"]).await.0.unwrap();
        behind.odd(&["stream", "1"]).await.0.unwrap();
        // One that is still there when the provider is closed.
        tokio::select! {
            reply = behind.odd(&["hang"]) => panic!("{reply:?}"),
            reply = behind.provider.describe() => { reply.unwrap(); }
        }
    }
}
