//! Networks as ONNX.
