//! Counter-based Gaussian noise, the forward process q, prediction targets and losses.
