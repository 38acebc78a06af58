//! Ratios to a baseline of the same run: the records that are listed, how runs are measured, and how that is shown.

pub mod measure;
pub mod records;
pub mod report;
