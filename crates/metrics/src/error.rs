//! What cannot be measured.

/// Arrays or images that cannot be judged.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// A flat array that is no whole number of rows.
    #[error("{what}: {length} values are no whole number of rows of {dim}")]
    Length {
        /// The array.
        what: &'static str,
        /// How many values it has.
        length: usize,
        /// How many values a row has.
        dim: usize,
    },
    /// Too few rows to measure anything.
    #[error("{what}: {rows} rows are too few, at least {needed} are needed")]
    TooFew {
        /// The array.
        what: &'static str,
        /// How many rows it has.
        rows: usize,
        /// How many are needed.
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
    /// The eigenvalues of a covariance could not be found.
    #[error("the eigenvalues of the covariance of {what} were not found in {iterations} iterations")]
    Eigenvalues {
        /// Which covariance.
        what: &'static str,
        /// How many iterations were made.
        iterations: usize,
    },
    /// A classifier needs labels.
    #[error("the images {name} have no labels of at least 2 classes: a classifier cannot learn from them")]
    NoLabels {
        /// The name of the image set.
        name: String,
    },
    /// A classifier needs images that can be halved twice.
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
        /// Why not.
        reason: String,
    },
    /// Inception sees gray or color.
    #[error("images of {channels} channels cannot be judged by Inception: it needs 1 or 3")]
    Channels {
        /// How many there are.
        channels: usize,
    },
    /// No passes over the data.
    #[error("a classifier needs at least 1 epoch")]
    NoEpochs,
}

/// How many rows of `dim` finite values `values` has.
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
