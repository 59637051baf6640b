//! The diagnosis of a step that is not finite.

use std::fmt;

use serde::Serialize;

/// A sample whose loss is not finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFiniteSample {
    /// Index of the image in the data.
    pub image: usize,
    /// The timestep of its noise level.
    pub timestep: f64,
    /// Its sigma, `sqrt((1 - alpha_bar) / alpha_bar)`.
    pub sigma: f64,
}

/// The diagnosis of a step whose loss, gradient or weights are not finite.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NonFiniteStep {
    /// The number of the step, from 1.
    pub step: u64,
    /// Its loss.
    pub loss: f64,
    /// The norm of its gradient.
    pub gradient_norm: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// Samples of the batch whose own loss is not finite.
    pub samples: Vec<NonFiniteSample>,
    /// Parameters that are not finite, in the order of the network: an earlier update broke them.
    pub weights: Vec<String>,
    /// Parameters whose gradient is not finite, in the order of the network.
    pub gradients: Vec<String>,
}

impl NonFiniteStep {
    /// Whether the weights themselves are not finite.
    pub fn has_broken_weights(&self) -> bool {
        !self.weights.is_empty()
    }
}

impl fmt::Display for NonFiniteStep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, loss, gradient_norm, learning_rate, samples, weights, gradients } = self;
        write!(formatter, "step {step}: loss {loss}, gradient norm {gradient_norm}, learning rate {learning_rate}")?;
        let mut list = |what: &str, names: &[String]| match names {
            [] => Ok(()),
            [only] => write!(formatter, "; {what} `{only}`"),
            [first, .., last] => write!(formatter, "; {what} `{first}` to `{last}` ({} in all)", names.len()),
        };
        list("not finite: the weights", weights)?;
        list("not finite: the gradients of", gradients)?;
        if let [first, ..] = samples.as_slice() {
            let NonFiniteSample { image, timestep, sigma } = first;
            write!(formatter, "; image {image} of the data at t = {timestep} (sigma {sigma:.3e})")?;
            if samples.len() > 1 {
                write!(formatter, " and {} more of the batch", samples.len() - 1)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_went_wrong() {
        let sample = |image| NonFiniteSample { image, timestep: 999.0, sigma: 2.5e4 };
        let non_finite = NonFiniteStep {
            step: 7,
            loss: f64::NAN,
            gradient_norm: f64::INFINITY,
            learning_rate: 1e-3,
            samples: vec![sample(3), sample(5)],
            weights: vec![],
            gradients: ["init_conv.weight", "init_conv.bias", "final_conv.bias"].map(str::to_owned).to_vec(),
        };
        let text = non_finite.to_string();
        let expected = "step 7: loss NaN, gradient norm inf, learning rate 0.001; not finite: the gradients of \
                        `init_conv.weight` to `final_conv.bias` (3 in all); image 3 of the data at t = 999 (sigma \
                        2.500e4) and 1 more of the batch";
        assert_eq!(text, expected);
        assert!(!non_finite.has_broken_weights());
    }
}
