//! Durable objects: writes payload and snapshot to a store and reads them back.
