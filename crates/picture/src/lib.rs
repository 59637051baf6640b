//! Grids, strips, GIFs and line charts from plain arrays.
