# `just` lists these.
_default:
    @just --list --unsorted

# Everything that must pass: format, lints, docs, tests
check: format-check lint docs test

# Formats the code
format:
    cargo fmt --all

# Refuses code that is not formatted
format-check:
    cargo fmt --all --check

# Lints, warnings refused
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# All tests
test:
    cargo test --workspace

# The documentation, warnings refused
docs:
    RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace --lib --examples

# One story, or all whose name contains NAME
story NAME:
    cargo test --test it {{NAME}}

# Writes the snapshots again; read the difference before you commit it
snapshots:
    UPDATE_EXPECT=1 INSTA_UPDATE=always cargo test --workspace

# Advisories, licences, sources and forbidden arrows (needs cargo-deny)
deny:
    cargo deny check

# A server for trying things out
dev:
    cargo run -- serve --config config/development.toml

# The container image
image:
    docker build --tag tidings .
