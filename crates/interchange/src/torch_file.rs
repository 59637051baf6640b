//! Files that torch.save writes.
