//! The errors of all measures, and the check of flat arrays.

/// Arrays, images or weights that a measure cannot use.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A flat array that is no whole number of rows.
    #[error("{what}: {length} values are no whole number of rows of {dim}")]
    Length {
        /// The array.
        what: &'static str,
        /// Number of its values.
        length: usize,
        /// Number of values of a row.
        dim: usize,
    },
    /// Too few rows to measure anything.
    #[error("{what}: {rows} rows are too few, at least {needed} are needed")]
    TooFew {
        /// The array.
        what: &'static str,
        /// Number of its rows.
        rows: usize,
        /// Number of rows that are needed.
        needed: usize,
    },
    /// A value that is infinite or not a number.
    #[error("{what}: value {index} of row {row} is {value}, not a finite number")]
    NotFinite {
        /// The array.
        what: &'static str,
        /// Its row.
        row: usize,
        /// Position in the row.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The eigenvalues of a covariance do not converge.
    #[error("the eigenvalues of the covariance of {what} were not found in {iterations} iterations")]
    Eigenvalues {
        /// Which covariance.
        what: &'static str,
        /// Number of iterations.
        iterations: usize,
    },
    /// Images without labels of at least two classes.
    #[error("the images {name} have no labels of at least 2 classes: a classifier cannot learn from them")]
    NoLabels {
        /// The name of the image set.
        name: String,
    },
    /// Images that cannot be halved twice.
    #[error("images of {height}x{width} are too small for the classifier: at least 4x4 is needed")]
    TooSmall {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Weights that cannot be used.
    #[error("the weights {} cannot be used: {reason}", path.display())]
    Weights {
        /// The file.
        path: std::path::PathBuf,
        /// The reason.
        reason: String,
    },
    /// Images that are neither gray nor color.
    #[error("images of {channels} channels cannot be judged by Inception: it needs 1 or 3")]
    Channels {
        /// Number of channels.
        channels: usize,
    },
    /// A classifier without epochs.
    #[error("a classifier needs at least 1 epoch")]
    NoEpochs,
}

/// Checks that `values` are at least `needed` rows of `dim` finite values, and returns the number of rows.
pub(crate) fn rows(what: &'static str, values: &[f32], dim: usize, needed: usize) -> Result<usize, MetricsError> {
    if dim == 0 || !values.len().is_multiple_of(dim) {
        return Err(MetricsError::Length { what, length: values.len(), dim });
    }
    let rows = values.len() / dim;
    if rows < needed {
        return Err(MetricsError::TooFew { what, rows, needed });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(MetricsError::NotFinite { what, row: at / dim, index: at % dim, value: values[at] }),
        None => Ok(rows),
    }
}
