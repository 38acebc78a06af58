//! The providers of `plugins/`, and their host, tested on each other.

mod plugins {
    mod config;
    mod conformance;
    mod guide;
    mod misbehaving;
    mod support;
    mod wrapped;
}
