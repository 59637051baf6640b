//! The training loop: objective, optimiser, EMA, steps and the run directory.
