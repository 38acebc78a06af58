//! The reference pages say what the code does: `UPDATE_EXPECT=1 cargo test` rewrites them.

use expect_test::expect_file;

#[test]
fn the_reference_of_errors() {
    expect_file!["../../../docs/errors.md"].assert_eq(&alpine_cli::docs::errors());
}

#[test]
fn the_reference_of_commands() {
    expect_file!["../../../docs/cli.md"].assert_eq(&alpine_cli::docs::commands());
}

#[test]
fn the_reference_of_agents() {
    expect_file!["../../../docs/agents.md"].assert_eq(&alpine_cli::docs::agents());
}
