//! The ledger as its callers use it: real files, real processes.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod disk;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod lists;
#[cfg(test)]
mod model;
#[cfg(test)]
mod power_loss;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod unknown;
#[cfg(test)]
mod upkeep;
#[cfg(test)]
mod world;
