//! No code: `Cargo.toml` holds dependencies whose features every program of the workspace shares, so that all use one
//! build of burn.
