//! Images for training: readers, transforms and a deterministic order, u8 on the host.
