//! The gateway's process: it takes connections until it is idle or its supervisor is gone.

use crate::access::Access;
use crate::config::GatewayConfig;
use crate::control::{Control, converse};
use crate::owner::Owner;
use crate::route::Door;
use crate::seats::{Seat, Seats};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Instant, sleep, sleep_until};

/// How long a connection may take to say what else it wants.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// How large the head of a request may be.
const HEAD_LIMIT: usize = 64 * 1024;

/// After how many failures in a row the listening socket is given up.
const FAILURES: u32 = 100;

/// Serves a session's door until nobody has been connected for `config.idle_ms`, or until `control` is closed by the
/// supervisor. It builds its own runtime and must not be called within one.
///
/// # Errors
/// The configuration is unsafe, or the sockets can't be used.
pub fn run(
    listener: std::net::TcpListener,
    control: std::os::unix::net::UnixStream,
    config: GatewayConfig,
) -> io::Result<()> {
    config.check()?;
    listener.set_nonblocking(true)?;
    control.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let control = UnixStream::from_std(control)?;
        serve(listener, control, config).await
    })
}

async fn serve(
    listener: TcpListener,
    control: UnixStream,
    config: GatewayConfig,
) -> io::Result<()> {
    let idle = Duration::from_millis(config.idle_ms);
    let (line, asks) = Control::new();
    let mut supervisor = tokio::spawn(converse(control, asks));
    let owner = config
        .upstream
        .as_ref()
        .map(|upstream| Arc::new(Owner::new(upstream.port, upstream.listener)));
    let door = Arc::new(Door {
        owner,
        access: Access::new(&config)?,
        control: line,
        config,
    });
    let seats = Seats::new();
    let mut waiting: Option<TcpStream> = None;
    let mut guests = 0;
    let mut idle_since = Instant::now();
    let mut failures = 0;
    loop {
        let nobody = waiting.is_none() && seats.are_empty();
        tokio::select! {
            biased;
            _ = &mut supervisor => return Ok(()),
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, _)) => {
                    failures = 0;
                    guests += 1;
                    seats.make_room();
                    waiting = Some(stream);
                }
                Err(error) if failures >= FAILURES => return Err(error),
                Err(_) => {
                    // Out of descriptors, most likely: others have to leave first.
                    failures += 1;
                    sleep(Duration::from_millis(100)).await;
                }
            },
            seat = seats.take(guests), if waiting.is_some() => {
                if let Some(stream) = waiting.take() {
                    tokio::spawn(connection(Arc::clone(&door), stream, seat));
                }
            }
            () = seats.left() => idle_since = Instant::now(),
            () = sleep_until(idle_since + idle), if nobody => return Ok(()),
        }
    }
}

async fn connection(door: Arc<Door>, stream: TcpStream, seat: Seat) {
    // Only a matter of speed.
    let _ = stream.set_nodelay(true);
    let guest = seat.clone();
    let service = service_fn(move |request| {
        guest.has_spoken();
        let door = Arc::clone(&door);
        let seat = guest.clone();
        async move { Ok::<_, Infallible>(door.answer(request, &seat).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended early");
            }
        }
        () = seat.lost() => tracing::debug!("a stranger's connection was ended"),
    }
}
