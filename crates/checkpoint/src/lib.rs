//! One self-describing model file: safetensors with a JSON header, written atomically.
