//! The two networks behind one type.

use burn::{
    module::Module,
    tensor::{DType, Device, Tensor, TensorData},
};
use documented::DocumentedFields;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Map, Value};

use crate::{
    config::{UnetConfig, UnetError},
    model::{Condition, Unet},
    state::StateError,
    unet2d::{Unet2d, Unet2dConfig},
};

/// The key that says which network a table describes.
const ARCHITECTURE: &str = "architecture";

/// The names of the architectures, the default first.
pub const ARCHITECTURES: [&str; 2] = ["unet", "unet2d"];

/// The architecture of a [`Network`]: the table `[unet]`.
///
/// A [`UnetConfig`] is written as its keys alone; a [`Unet2dConfig`] begins with `architecture = "unet2d"`.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkConfig {
    /// lucidrains' U-Net.
    Unet(UnetConfig),
    /// diffusers' `UNet2DModel`.
    Unet2d(Unet2dConfig),
}

/// A denoising network.
#[allow(clippy::large_enum_variant, reason = "a network has few of them")]
#[derive(Module, Debug)]
pub enum Network {
    /// lucidrains' U-Net.
    Unet(Unet),
    /// diffusers' `UNet2DModel`.
    Unet2d(Unet2d),
}

impl From<UnetConfig> for NetworkConfig {
    fn from(config: UnetConfig) -> Self {
        Self::Unet(config)
    }
}

impl From<Unet2dConfig> for NetworkConfig {
    fn from(config: Unet2dConfig) -> Self {
        Self::Unet2d(config)
    }
}

impl From<Unet> for Network {
    fn from(unet: Unet) -> Self {
        Self::Unet(unet)
    }
}

impl From<Unet2d> for Network {
    fn from(unet: Unet2d) -> Self {
        Self::Unet2d(unet)
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self::Unet(UnetConfig::default())
    }
}

impl Serialize for NetworkConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Tagged<'a> {
            architecture: &'static str,
            #[serde(flatten)]
            config: &'a Unet2dConfig,
        }
        match self {
            Self::Unet(config) => config.serialize(serializer),
            Self::Unet2d(config) => Tagged { architecture: self.architecture(), config }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NetworkConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // the key may stand anywhere in the table
        let mut keys = Map::deserialize(deserializer)?;
        let architecture = keys.remove(ARCHITECTURE).unwrap_or_else(|| ARCHITECTURES[0].into());
        match architecture.as_str() {
            Some("unet") => of_keys(keys).map(Self::Unet).map_err(Error::custom),
            Some("unet2d") => of_keys(keys).map(Self::Unet2d).map_err(Error::custom),
            _ => Err(Error::custom(format!("{ARCHITECTURE} = {architecture} is none of unet, unet2d"))),
        }
    }
}

/// A configuration, or an error that begins with the key.
fn of_keys<T: DeserializeOwned>(keys: Map<String, Value>) -> Result<T, String> {
    T::deserialize(Value::Object(keys.clone())).map_err(|whole| {
        // every key has a default: the wrong one is wrong alone
        let alone = |(key, value)| T::deserialize(Value::Object(Map::from_iter([(key, value)]))).err();
        let named = |(key, value): (String, Value)| Some(format!("unet.{key}: {}", alone((key.clone(), value))?));
        keys.into_iter().find_map(named).unwrap_or_else(|| whole.to_string())
    })
}

/// Calls a method of either configuration or network.
macro_rules! either {
    ($this:expr, $inner:ident => $result:expr) => {
        match $this {
            Self::Unet($inner) => $result,
            Self::Unet2d($inner) => $result,
        }
    };
}

impl NetworkConfig {
    /// The default configuration of an architecture of [`ARCHITECTURES`]; None for another name.
    pub fn default_of(architecture: &str) -> Option<Self> {
        match architecture {
            "unet" => Some(UnetConfig::default().into()),
            "unet2d" => Some(Unet2dConfig::default().into()),
            _ => None,
        }
    }

    /// The name of the architecture, one of [`ARCHITECTURES`].
    pub fn architecture(&self) -> &'static str {
        match self {
            Self::Unet(_) => "unet",
            Self::Unet2d(_) => "unet2d",
        }
    }

    /// The documentation of a key; None for an unknown one.
    pub fn field_docs(&self, key: &str) -> Option<&'static str> {
        match self {
            _ if key == ARCHITECTURE => {
                Some("The network: `unet` (lucidrains', if not given) or `unet2d` (diffusers' `UNet2DModel`).")
            }
            Self::Unet(_) => UnetConfig::get_field_docs(key).ok(),
            Self::Unet2d(_) => Unet2dConfig::get_field_docs(key).ok(),
        }
    }

    /// lucidrains' configuration, if it is one.
    pub fn as_unet(&self) -> Option<&UnetConfig> {
        match self {
            Self::Unet(config) => Some(config),
            Self::Unet2d(_) => None,
        }
    }

    /// lucidrains' configuration, if it is one.
    pub fn as_unet_mut(&mut self) -> Option<&mut UnetConfig> {
        match self {
            Self::Unet(config) => Some(config),
            Self::Unet2d(_) => None,
        }
    }

    /// Checks every value; called by [`init`](Self::init).
    ///
    /// # Errors
    /// [`UnetError`] names the key, its value and what is possible.
    pub fn validate(&self) -> Result<(), UnetError> {
        either!(self, config => config.validate())
    }

    /// Builds the network on `device`; see [`UnetConfig::init`].
    ///
    /// # Errors
    /// [`UnetError`] of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<Network, UnetError> {
        either!(self, config => Ok(config.init(device)?.into()))
    }

    /// Number of parameters, counted without building the network.
    pub fn parameters(&self) -> u128 {
        either!(self, config => config.parameters())
    }

    /// Least number of saved activations per image of this size.
    pub fn saved_activations(&self, height: usize, width: usize) -> u128 {
        either!(self, config => config.saved_activations(height, width))
    }

    /// The sizes that decide the number of parameters, in words, for messages.
    pub fn sizes(&self) -> String {
        match self {
            Self::Unet(UnetConfig { dim, dim_mults, .. }) => format!("dim {dim}, dim_mults {dim_mults:?}"),
            Self::Unet2d(config) => format!("block_out_channels {:?}", config.block_out_channels),
        }
    }

    /// The keys to lower for a smaller network, for messages.
    pub fn size_keys(&self) -> &'static str {
        match self {
            Self::Unet(_) => "unet.dim or unet.dim_mults",
            Self::Unet2d(_) => "unet.block_out_channels or unet.layers_per_block",
        }
    }

    /// Channels of the image.
    pub fn channels(&self) -> usize {
        either!(self, config => config.channels)
    }

    /// Sets the channels of the image.
    pub fn set_channels(&mut self, channels: usize) {
        either!(self, config => config.channels = channels);
    }

    /// Channels of the output.
    pub fn out_dim(&self) -> usize {
        either!(self, config => config.out_dim())
    }

    /// Number of classes; 0 for a network without labels. The label `classes` is the null class.
    pub fn classes(&self) -> usize {
        either!(self, config => config.classes)
    }

    /// Sets the number of classes.
    pub fn set_classes(&mut self, classes: usize) {
        either!(self, config => config.classes = classes);
    }

    /// Whether the network also takes an earlier prediction of x_0.
    pub fn self_condition(&self) -> bool {
        self.as_unet().is_some_and(|config| config.self_condition)
    }

    /// Whether the output has a second half that interpolates the variance.
    pub fn learned_variance(&self) -> bool {
        either!(self, config => config.learned_variance)
    }

    /// Probability that an element is dropped, in training.
    pub fn dropout(&self) -> f64 {
        either!(self, config => config.dropout)
    }

    /// The factor that height and width of an image must be divisible by.
    pub fn downsample_factor(&self) -> usize {
        either!(self, config => config.downsample_factor())
    }

    /// Checks that images of this size can go through the network.
    ///
    /// # Errors
    /// [`UnetError::NotDivisible`] with the next size that works.
    pub fn check_image_size(&self, height: usize, width: usize) -> Result<(), UnetError> {
        either!(self, config => config.check_image_size(height, width))
    }
}

impl Network {
    /// The configuration that the network was built from.
    pub fn config(&self) -> NetworkConfig {
        either!(self, network => network.config().clone().into())
    }

    /// Number of classes; 0 for a network without labels. The label `classes` is the null class.
    pub fn classes(&self) -> usize {
        either!(self, network => network.config().classes)
    }

    /// The device of its parameters.
    pub fn device(&self) -> Device {
        either!(self, network => network.device())
    }

    /// Whether they are on a GPU, which evaluates one large batch sooner than two small ones.
    pub fn is_on_gpu(&self) -> bool {
        kernels::is_gpu(&self.device())
    }

    /// The number format of its parameters.
    pub fn dtype(&self) -> DType {
        either!(self, network => network.dtype())
    }

    /// The prediction, whose meaning the objective defines; see [`Unet::forward`].
    ///
    /// # Shapes
    /// - `x_t`: `[batch, channels, height, width]`, height and width divisible by
    ///   [`downsample_factor`](NetworkConfig::downsample_factor)
    /// - `t`: `[batch]`, 0 to T - 1
    /// - result: `[batch, out_dim, height, width]`
    ///
    /// # Panics
    /// If a shape does not fit; [`NetworkConfig::check_image_size`] asks before.
    pub fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, condition: Condition) -> Tensor<4> {
        either!(self, network => network.forward(x_t, t, condition))
    }

    /// The names of all parameters, in the order of the network.
    pub fn parameter_names(&self) -> Vec<String> {
        either!(self, network => network.parameter_names())
    }

    /// All parameters with their names, in the order of the network and in the network's number format.
    pub fn state_dict(&self) -> Vec<(String, TensorData)> {
        either!(self, network => network.state_dict())
    }

    /// Replaces every parameter by the value that `find` returns for its name.
    ///
    /// # Errors
    /// [`StateError`] for the first parameter that is missing or has another shape.
    pub fn load_state_dict(self, find: impl FnMut(&str) -> Option<TensorData>) -> Result<Self, StateError> {
        either!(self, network => Ok(network.load_state_dict(find)?.into()))
    }

    /// Draws all parameters from PyTorch's default distributions; see [`Unet::initialize`].
    pub fn initialize(self, normal: impl FnMut(u64, &mut [f32]), uniform: impl FnMut(u64, &mut [f32])) -> Self {
        either!(self, network => network.initialize(normal, uniform).into())
    }
}
