//! The boundary, over each transport: the fake as a hosted library, as a library in this process, and as an executable.

mod port {
    mod faults;
    mod here;
    mod libraries;
    mod methods;
    mod raw;
    mod streams;
    mod support;
}
