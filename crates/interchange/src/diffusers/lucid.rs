//! lucidrains' U-Net as a pipeline of its own: code in PyTorch beside the weights.

use checkpoint::Header;
use serde_json::{Value, json};
use unet::{AttentionKind, UnetConfig};

use super::export::Files;
use crate::Account;

/// Adds the configuration and the code of the network, and the code of the pipeline.
pub fn describe(header: &Header, config: &UnetConfig, files: &mut Files, account: &mut Account) {
    let attention: Vec<AttentionKind> = (0..config.dim_mults.len()).map(|level| config.attention_of(level)).collect();
    let mut keys = json!(config);
    if let Value::Object(keys) = &mut keys {
        let image = header.image;
        keys.extend(
            [
                ("_class_name", json!("DiffuseUnet")),
                ("attention", json!(attention)),
                ("init_dim", json!(config.init_dim())),
                ("out_dim", json!(config.out_dim())),
                ("sample_size", json!([image.height, image.width])),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
    }
    files.json("unet/config.json", keys);
    files.add("unet/modeling.py", include_str!("modeling.py"));
    files.add("pipeline.py", include_str!("pipeline.py"));
    account.used.push(format!(
        "the network, {} parameters, with its code: load it with DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, \
         trust_remote_code=True)",
        config.parameters()
    ));
}
