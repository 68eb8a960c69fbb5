//! What the example programs share: their messages and services.

/// Generated from `proto/bookinfo.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
#[rustfmt::skip]
pub mod bookinfo {
    include!("proto/bookinfo.rs");
}

/// Generated from `proto/greeter.proto` by `cargo xtask codegen`.
#[allow(missing_docs, clippy::all, unreachable_pub, rustdoc::all)]
#[rustfmt::skip]
pub mod greeter {
    include!("proto/greeter.rs");
}
