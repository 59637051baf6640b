//! The one place that turns a name into a burn device.
