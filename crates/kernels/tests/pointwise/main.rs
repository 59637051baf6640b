//! Every operation against loops in f64, and its gradients against difference quotients of those loops.

mod activation;
mod attention;
mod elementwise;
mod normalization;
mod optimizer;
mod reference;
mod softmax;
