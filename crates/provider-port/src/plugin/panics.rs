//! Panics of a provider become answers: none crosses the boundary.

use alpine_provider_api::{ErrorKind, ProviderError};
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

thread_local! {
    /// What the last panic of this thread said, and where.
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes where each panic is from, since what catches one is not told.
pub(super) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let place = place.unwrap_or_else(|| "an unknown place".to_owned());
            let payload = panic.payload();
            let fixed = payload.downcast_ref::<&str>().copied();
            let said = fixed.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            let said = said.unwrap_or("no message");
            tracing::error!(place, "panicked: {said}");
            LAST.set(Some(format!("panicked at {place}: {said}")));
        }));
    });
}

/// Does this; a panic is a failure of kind `Internal` that says where.
pub(super) fn caught<T>(
    work: impl FnOnce() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
}

/// The same for a future.
pub(super) async fn caught_in<T>(
    work: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}

fn panicked() -> ProviderError {
    let said = LAST.take().unwrap_or_else(|| "panicked".to_owned());
    ProviderError::new(ErrorKind::Internal, format!("the provider {said}"))
}
