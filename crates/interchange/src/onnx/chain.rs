//! The DDIM chain around a network, as a loop of the graph.

use checkpoint::{GuidanceKind, Header};
use schedule::{NoiseLevel, Objective};

use super::{
    graph::{Graph, Size, Value, body, bool_info, f32_info, i64_info, int},
    layers::Image,
    network::{Inputs, network},
};
use crate::InterchangeError;

/// The numbers of each step.
#[derive(Default)]
struct Steps {
    /// Factor of x_t in the input of the network.
    input: Vec<f32>,
    /// Time input of the network.
    time: Vec<f32>,
    /// Factors of x_t and the output in x_0.
    x_0: [Vec<f32>; 2],
    /// Factors of x_t and the clipped x_0, or of x_t and the output without clipping, in epsilon.
    epsilon: [Vec<f32>; 2],
    /// Factors of x_0 and epsilon in the next x_t.
    next: [Vec<f32>; 2],
    /// Scale of the guidance: 1 outside of its interval.
    guidance: Vec<f32>,
}

/// The DDIM chain of a model, before it is a graph.
pub(super) struct Chain<'a> {
    header: &'a Header,
    steps: Steps,
    is_guided: bool,
}

impl<'a> Chain<'a> {
    /// The chain of `count` steps.
    ///
    /// # Errors
    /// [`InterchangeError::NoTwin`] where the sampling of the model cannot be expressed.
    pub(super) fn new(header: &'a Header, count: usize) -> Result<Self, InterchangeError> {
        let refuse = |reason: String| Err(InterchangeError::NoTwin { reason });
        let (options, channels) = (&header.sampling, header.image.channels);
        let is_guided = header.unet.classes() > 0 && options.guidance != 1.0;
        if header.unet.out_dim() < channels {
            let out = header.unet.out_dim();
            return refuse(format!(
                "the network returns {out} channels for images of {channels}: no image can be drawn; export without --chain"
            ));
        }
        if is_guided && options.guidance_kind == GuidanceKind::CfgPlusPlus {
            return refuse(
                "a chain in ONNX has classifier-free guidance, not CFG++: set sampling.guidance_kind = \"cfg\""
                    .to_owned(),
            );
        }
        if is_guided && options.guidance_rescale != 0.0 {
            let rescale = options.guidance_rescale;
            return refuse(format!(
                "a chain in ONNX does not rescale guided images: sampling.guidance_rescale is {rescale}, set it to 0"
            ));
        }
        let built = header.schedule.build().and_then(|schedule| schedule.levels(options.spacing, count));
        let levels = built.map_err(|error| InterchangeError::NoTwin { reason: error.to_string() })?;
        let steps = Steps::new(header, &levels)?;
        Ok(Self { header, steps, is_guided })
    }

    /// Adds the loop: from `noise` and, of a model with classes, `labels`, to `images`.
    pub(super) fn add_to(&self, graph: &mut Graph) -> Result<(), InterchangeError> {
        let (unet, image) = (&self.header.unet, &self.header.image);
        let shape = [Size::Batch, Size::Fixed(image.channels), Size::Fixed(image.height), Size::Fixed(image.width)];
        let noise = Value::new("noise");
        let labels = (unet.classes() > 0).then(|| self.labels(graph));
        let mut carried = vec![noise.clone()];
        if unet.self_condition() {
            let sizes = graph.node("self_condition", "Shape", &[&noise], vec![]);
            let zero = graph.float(0.0);
            carried.push(graph.node("self_condition", "Expand", &[&zero, &sizes], vec![]));
        }
        let (count, condition) = (graph.integer(self.steps.time.len() as i64), graph.truth());

        // the nodes of the loop lie between those before and after it: set those before aside
        let before = graph.take_nodes();
        self.step(graph, labels)?;
        let (mut inputs, mut outputs) =
            (vec![i64_info("step", &[]), bool_info("go_on")], vec![bool_info("go_on_next")]);
        for (index, _) in carried.iter().enumerate() {
            let (input, output) = [("x_t", "x_next"), ("x_0_before", "x_0")][index];
            inputs.push(f32_info(input, &shape));
            outputs.push(f32_info(output, &shape));
        }
        let step = graph.take_body(inputs, outputs);
        graph.put_nodes(before);
        let inputs: Vec<&Value> = [&count, &condition].into_iter().chain(&carried).collect();
        let names = &["x_last", "x_0_last"][..carried.len()];
        graph.node_named("Loop", &inputs, vec![body("body", step)], names);
        self.crop(graph);
        Ok(())
    }

    /// The labels of the batch; of a guided chain, with the null class for as many images behind them.
    fn labels(&self, graph: &mut Graph) -> Value {
        let labels = Value::new("labels");
        if !self.is_guided {
            return labels;
        }
        let null = graph.integer(self.header.unet.classes() as i64);
        let sizes = graph.node("guidance", "Shape", &[&labels], vec![]);
        let null = graph.node("guidance", "Expand", &[&null, &sizes], vec![]);
        graph.node("guidance", "Concat", &[&labels, &null], vec![int("axis", 0)])
    }

    /// The nodes of one step.
    fn step(&self, graph: &mut Graph, labels: Option<Value>) -> Result<(), InterchangeError> {
        let (header, steps) = (self.header, &self.steps);
        let x_t = Value::new("x_t");
        let mut input = x_t.clone();
        if matches!(header.objective, Objective::Edm { .. } | Objective::Flow) {
            let factor = of_step(graph, "input", &steps.input);
            input = graph.node("input", "Mul", &[&input, &factor], vec![]);
        }
        let input = self.twice(graph, input);
        let batch = graph.node("time", "Shape", &[&input], vec![int("start", 0), int("end", 1)]);
        let time = of_step(graph, "time", &steps.time);
        let t = graph.node("time", "Expand", &[&time, &batch], vec![]);
        let self_condition = header.unet.self_condition().then(|| self.twice(graph, Value::new("x_0_before")));
        let (channels, height, width) = (header.image.channels, header.image.height, header.image.width);
        let x_t_image = Image { value: input, channels, height, width };
        let output = network(graph, &header.unet, &Inputs { x_t: x_t_image, t, labels, self_condition })?;
        let output = self.prediction(graph, output);

        let mut x_0 = mix(graph, "x_0", [&x_t, &output], &steps.x_0);
        let mut of_epsilon = output;
        if header.sampling.clip {
            let (least, most) = (graph.float(-1.0), graph.float(1.0));
            x_0 = graph.node("x_0", "Clip", &[&x_0, &least, &most], vec![]);
            of_epsilon = x_0.clone();
        }
        let epsilon = mix(graph, "epsilon", [&x_t, &of_epsilon], &steps.epsilon);
        let next = mix(graph, "next", [&x_0, &epsilon], &steps.next);
        graph.node_named("Identity", &[&Value::new("go_on")], vec![], &["go_on_next"]);
        graph.node_named("Identity", &[&next], vec![], &["x_next"]);
        if header.unet.self_condition() {
            graph.node_named("Identity", &[&x_0], vec![], &["x_0"]);
        }
        Ok(())
    }

    /// The batch, of a guided chain twice.
    fn twice(&self, graph: &mut Graph, x: Value) -> Value {
        if self.is_guided { graph.node("guidance", "Concat", &[&x, &x], vec![int("axis", 0)]) } else { x }
    }

    /// The output of the network without the channels of a learned variance, and guided.
    fn prediction(&self, graph: &mut Graph, output: Image) -> Value {
        let image = &self.header.image;
        let mut value = output.value;
        if output.channels > image.channels {
            let (start, end, axis) =
                (graph.integers(&[0]), graph.integers(&[image.channels as i64]), graph.integers(&[1]));
            value = graph.node("prediction", "Slice", &[&value, &start, &end, &axis], vec![]);
        }
        if !self.is_guided {
            return value;
        }
        let halves = [2, -1, image.channels as i64, image.height as i64, image.width as i64];
        let halves = graph.integers(&halves);
        let both = graph.node("guidance", "Reshape", &[&value, &halves], vec![]);
        let [conditional, null] = [0, 1].map(|half| {
            let half = graph.integer(half);
            graph.node("guidance", "Gather", &[&both, &half], vec![int("axis", 0)])
        });
        // x_0 and epsilon are linear in the output: guiding it guides them
        let scale = of_step(graph, "guidance", &self.steps.guidance);
        let difference = graph.node("guidance", "Sub", &[&conditional, &null], vec![]);
        let scaled = graph.node("guidance", "Mul", &[&difference, &scale], vec![]);
        graph.node("guidance", "Add", &[&null, &scaled], vec![])
    }

    /// `images`: the content of the last x_t.
    fn crop(&self, graph: &mut Graph) {
        let image = &self.header.image;
        let (top, left) = ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
        let starts = graph.integers(&[top as i64, left as i64]);
        let ends = graph.integers(&[(top + image.content_height) as i64, (left + image.content_width) as i64]);
        let axes = graph.integers(&[2, 3]);
        graph.node_named("Slice", &[&Value::new("x_last"), &starts, &ends, &axes], vec![], &["images"]);
    }
}

impl Steps {
    fn new(header: &Header, levels: &[NoiseLevel]) -> Result<Self, InterchangeError> {
        let (objective, options) = (header.objective, &header.sampling);
        let [least, most] = options.guidance_interval.unwrap_or([0.0, f64::INFINITY]);
        let mut steps = Self::default();
        for pair in levels.windows(2) {
            let (level, next) = (pair[0], pair[1]);
            let factors = objective.preconditioning(level);
            let of_epsilon = if options.clip { Objective::X0 } else { objective };
            let epsilon = of_epsilon.preconditioning(level).epsilon;
            let numbers = [factors.input, factors.time, factors.x_0[0], factors.x_0[1], epsilon[0], epsilon[1]];
            if !numbers.iter().all(|number| (*number as f32).is_finite()) {
                let (timestep, alpha_bar) = (level.timestep, level.alpha_bar);
                return Err(InterchangeError::NoTwin {
                    reason: format!(
                        "the objective `{objective}` has no finite factors at timestep {timestep}, where alpha_bar is \
                         {alpha_bar}: choose another sampling.spacing, which does not begin there"
                    ),
                });
            }
            steps.input.push(numbers[0] as f32);
            steps.time.push(numbers[1] as f32);
            steps.x_0.iter_mut().zip(&numbers[2..4]).for_each(|(list, number)| list.push(*number as f32));
            steps.epsilon.iter_mut().zip(&numbers[4..6]).for_each(|(list, number)| list.push(*number as f32));
            let factors = [next.signal_scale(), next.noise_scale()];
            steps.next.iter_mut().zip(factors).for_each(|(list, number)| list.push(number as f32));
            let guided = (least..=most).contains(&level.sigma());
            steps.guidance.push(if guided { options.guidance as f32 } else { 1.0 });
        }
        Ok(steps)
    }
}

/// The number of this step, of a list with one for each.
fn of_step(graph: &mut Graph, place: &str, numbers: &[f32]) -> Value {
    let list = graph.floats(&format!("steps.{place}"), &[numbers.len()], numbers);
    graph.node(place, "Gather", &[&list, &Value::new("step")], vec![int("axis", 0)])
}

/// Two values, each times its factor in this step, added up.
fn mix(graph: &mut Graph, place: &str, values: [&Value; 2], factors: &[Vec<f32>; 2]) -> Value {
    let [first, second] = [0, 1].map(|index| {
        let factor = of_step(graph, &format!("{place}.{index}"), &factors[index]);
        graph.node(place, "Mul", &[values[index], &factor], vec![])
    });
    graph.node(place, "Add", &[&first, &second], vec![])
}
