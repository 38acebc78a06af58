//! Ratios to a baseline of the same run: the records that are listed, how runs are measured, and how that is shown.

pub mod cold;
pub mod measure;
pub mod predecessor;
pub mod records;
pub mod report;
