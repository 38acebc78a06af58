//! Picks the port that an agent is to listen on.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below those that Linux gives to connections, and to listeners that take any (from 32768 on, unless it is told otherwise):
/// none of them takes it before the agent does.
const PORTS: Range<u16> = 20_000..32_768;
const TRIES: u32 = 64;

/// A port of 127.0.0.1 where nobody listens at this moment.
///
/// # Errors
/// When no port can be had.
pub fn free_port() -> io::Result<u16> {
    for _ in 0..TRIES {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let port = PORTS.start + u16::from_ne_bytes(bytes) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

#[cfg(test)]
mod tests {
    use super::{PORTS, free_port};

    #[test]
    fn no_connection_takes_the_port_before_the_agent_does() {
        let drawn: Vec<_> = (0..20).map(|_| free_port().unwrap()).collect();
        assert!(drawn.iter().all(|port| PORTS.contains(port)), "{drawn:?}");
        assert!(drawn.iter().any(|port| *port != drawn[0]), "{drawn:?}");
    }
}
