//! What a checkout that executes nothing leaves out.

use alpine_files::read_small;
use std::path::Path;

/// How much of a file of attributes is looked at.
const LARGEST: u64 = 256 * 1024;

/// What a checkout that executes nothing leaves out, for the user to know. The tree is one that nobody else has written.
#[must_use]
pub fn left_out(tree: &Path) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if tree.join(".gitmodules").symlink_metadata().is_ok() {
        warnings.push(
            "the repository's submodules were not brought in; in the workspace: git submodule update --init --recursive",
        );
    }
    let attributes = read_small(&tree.join(".gitattributes"), LARGEST)
        .ok()
        .flatten()
        .unwrap_or_default();
    if attributes.windows(10).any(|window| window == b"filter=lfs") {
        warnings.push(
            "files that are kept in Git LFS are pointers in the workspace; in it: git lfs install --local && git lfs pull",
        );
    }
    warnings
}
