//! Every operation against plain loops in f64, and its gradients against difference quotients of those loops.

mod activation;
mod attention;
mod elementwise;
mod normalisation;
mod optimiser;
mod reference;
mod softmax;
