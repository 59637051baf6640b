//! Repositories of the Hugging Face Hub: the files of a pipeline, kept in a cache and resumed where a download broke off.
//!
//! `HF_ENDPOINT` names another server, `HF_TOKEN` a token for private repositories.
//!
//! Crate `hf-hub` 1.0.0 begins a broken download again, and brings reqwest, tokio and a TLS library in C; `ureq` is here already.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::InterchangeError;

/// The server, where `HF_ENDPOINT` names none.
const ENDPOINT: &str = "https://huggingface.co";
/// The largest list of files that is read, in bytes.
const LARGEST_LIST: u64 = 1 << 24;
/// The largest file that is kept, in bytes.
const LARGEST: u64 = 1 << 36;
/// The configurations, each of which may be missing.
const CONFIGURATIONS: [&str; 5] =
    ["model_index.json", "unet/config.json", "config.json", "scheduler/scheduler_config.json", "scheduler_config.json"];
/// The weights, the preferred ones first; an index stands for its shards.
const WEIGHTS: [&str; 5] = [
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.bin.index.json",
    "diffusion_pytorch_model.fp16.safetensors",
];

/// A repository, `USER/NAME` or `USER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    name: String,
    revision: String,
}

impl std::str::FromStr for Repository {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let is_plain = |part: &str| {
            let good = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(good)
        };
        let parts: Vec<&str> = name.split('/').collect();
        if (1..=2).contains(&parts.len()) && parts.iter().all(|part| is_plain(part)) && is_plain(revision) {
            Ok(Self { name: name.to_owned(), revision: revision.to_owned() })
        } else {
            Err(format!("`{text}` is no repository of the Hub; write it as USER/NAME or USER/NAME@REVISION"))
        }
    }
}

/// Fetches the pipeline of a repository into the cache, and returns its folder there, which
/// [`import`](crate::diffusers::import) reads. Files that are there are not fetched again, and a part of one is completed.
/// `progress` is called with a line of text for each file.
///
/// # Errors
/// [`InterchangeError::File`] names the address and the reason: no network, no such repository, no such pipeline in it.
pub fn fetch(
    repository: &Repository,
    cache: &Path,
    progress: &mut dyn FnMut(&str),
) -> Result<PathBuf, InterchangeError> {
    let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.is_empty());
    let hub = Hub::new(endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/'), std::env::var("HF_TOKEN").ok());
    hub.fetch(repository, cache, progress)
}

/// A server.
struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Hub {
    fn new(endpoint: &str, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .user_agent(concat!("diffuse/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .build()
            .into();
        Self { endpoint: endpoint.to_owned(), token, agent }
    }

    fn fetch(
        &self,
        repository: &Repository,
        cache: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, InterchangeError> {
        let Repository { name, revision } = repository;
        let folder = cache.join(format!("{}@{revision}", name.replace('/', "--")));
        let whole = folder.join(".whole");
        if whole.is_file() {
            return Ok(folder);
        }
        let url = format!("{}/api/models/{name}/revision/{revision}", self.endpoint);
        let names = self.names(&url)?;
        let has = |file: &str| names.iter().any(|name| name == file);
        let mut wanted: Vec<String> =
            CONFIGURATIONS.iter().filter(|file| has(file)).map(|file| (*file).to_owned()).collect();
        let unet = if has("unet/config.json") { "unet/" } else { "" };
        let weights = WEIGHTS.iter().map(|file| format!("{unet}{file}")).find(|file| has(file));
        let (true, Some(weights)) = (has(&format!("{unet}config.json")), weights) else {
            let reason = "it has no pipeline of diffusers: neither unet/config.json nor config.json with diffusion_pytorch_model beside it";
            return Err(failed(&url, reason.to_owned()));
        };
        wanted.push(weights.clone());
        for file in &wanted {
            self.download(repository, file, &folder, progress)?;
        }
        if weights.ends_with(".index.json") {
            for shard in crate::diffusers::shards(&folder.join(&weights))? {
                self.download(repository, &format!("{unet}{shard}"), &folder, progress)?;
            }
        }
        files::write_atomically(&whole, b"").map_err(|error| failed(&url, error.to_string()))?;
        Ok(folder)
    }

    fn request(&self, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(url);
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// The names of all files of a repository.
    fn names(&self, url: &str) -> Result<Vec<String>, InterchangeError> {
        let mut response = self.request(url).call().map_err(|error| unreachable_server(url, &error))?;
        match response.status().as_u16() {
            200 => {}
            401 | 403 | 404 => {
                let reason =
                    "there is no such repository, or it is not public; check its name, or set HF_TOKEN".to_owned();
                return Err(failed(url, reason));
            }
            status => return Err(failed(url, format!("the server answers with {status}; try again later"))),
        }
        let text = response.body_mut().with_config().limit(LARGEST_LIST).read_to_string();
        let text = text.map_err(|error| unreachable_server(url, &error))?;
        let list: Value =
            serde_json::from_str(&text).map_err(|error| failed(url, format!("no list of files: {error}")))?;
        let files = list["siblings"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(files.iter().filter_map(|file| Some(file["rfilename"].as_str()?.to_owned())).collect())
    }

    /// Downloads a file, from where an earlier download broke off.
    fn download(
        &self,
        repository: &Repository,
        file: &str,
        folder: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> Result<(), InterchangeError> {
        let (target, part) = (folder.join(file), folder.join(format!("{file}.part")));
        if target.is_file() {
            return Ok(());
        }
        let Repository { name, revision } = repository;
        let url = format!("{}/{name}/resolve/{revision}/{file}", self.endpoint);
        let disk = |error: io::Error| InterchangeError::File {
            path: part.clone(),
            reason: format!("cannot be written: {error}"),
        };
        fs::create_dir_all(target.parent().unwrap_or(folder)).map_err(disk)?;
        let there = fs::metadata(&part).map_or(0, |metadata| metadata.len());
        let mut request = self.request(&url);
        if there > 0 {
            request = request.header("Range", format!("bytes={there}-"));
        }
        let response = request.call().map_err(|error| unreachable_server(&url, &error))?;
        let mut out = match response.status().as_u16() {
            200 => File::create(&part).map_err(disk)?,
            206 => OpenOptions::new().append(true).open(&part).map_err(disk)?,
            // the part is the whole file
            416 if there > 0 => return fs::rename(&part, &target).map_err(disk),
            status => return Err(failed(&url, format!("the server answers with {status}; try again later"))),
        };
        progress(&format!("downloading {url}"));
        let mut body = response.into_body().into_with_config().limit(LARGEST).reader().take(LARGEST);
        io::copy(&mut body, &mut out).map_err(|error| {
            failed(&url, format!("the download broke off ({error}); the same command goes on with it"))
        })?;
        out.sync_all().map_err(disk)?;
        fs::rename(&part, &target).map_err(disk)
    }
}

fn failed(url: &str, reason: String) -> InterchangeError {
    InterchangeError::File { path: PathBuf::from(url), reason }
}

fn unreachable_server(url: &str, error: &ureq::Error) -> InterchangeError {
    failed(
        url,
        format!(
            "cannot be reached: {error}; where there is no network, download the repository elsewhere and name its folder"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use super::*;

    /// Answers each request by its path and the start of its range, and returns the address.
    fn serve(answer: impl Fn(&str, u64) -> Vec<u8> + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines().map_while(Result::ok);
                let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let range = headers.iter().find_map(|line| {
                    let (name, value) = line.split_once(": bytes=")?;
                    name.eq_ignore_ascii_case("range").then(|| value.trim_end_matches('-').parse().ok())?
                });
                drop(stream.write_all(&answer(&path, range.unwrap_or(0))));
            }
        });
        address
    }

    fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    const LIST: &str = r#"{"siblings": [{"rfilename": "config.json"}, {"rfilename": "README.md"},
        {"rfilename": "diffusion_pytorch_model.bin"}, {"rfilename": "diffusion_pytorch_model.safetensors"}]}"#;

    #[test]
    fn a_pipeline_is_fetched_once_and_a_broken_download_goes_on() {
        let weights = b"0123456789";
        let address = serve(|path, start| match path {
            "/api/models/some/model/revision/main" => response("200 OK", LIST.len(), LIST.as_bytes()),
            "/some/model/resolve/main/config.json" => response("200 OK", 2, b"{}"),
            // the first answer breaks off
            "/some/model/resolve/main/diffusion_pytorch_model.safetensors" if start == 0 => {
                response("200 OK", 10, &b"0123456789"[..4])
            }
            "/some/model/resolve/main/diffusion_pytorch_model.safetensors" => {
                let rest = &b"0123456789"[start as usize..];
                response("206 Partial Content", rest.len(), rest)
            }
            other => panic!("{other} was asked for"),
        });
        let cache = tempfile::tempdir().expect("a folder");
        let repository: Repository = "some/model".parse().expect("a name");
        let hub = Hub::new(&address, None);
        let error = hub.fetch(&repository, cache.path(), &mut |_| ()).expect_err("broken off").to_string();
        assert!(error.contains("goes on with it"), "{error}");
        let folder = hub.fetch(&repository, cache.path(), &mut |_| ()).expect("the rest");
        assert_eq!(fs::read(folder.join("diffusion_pytorch_model.safetensors")).expect("a file"), weights);
        assert!(!folder.join("README.md").exists());
        // the cache needs no network
        let nowhere = Hub::new("http://127.0.0.1:1", None);
        assert_eq!(nowhere.fetch(&repository, cache.path(), &mut |_| ()).expect("the cache"), folder);
    }

    #[test]
    fn what_cannot_be_fetched_is_said() {
        let cache = tempfile::tempdir().expect("a folder");
        let repository: Repository = "some/model".parse().expect("a name");
        let error = |address: &str| {
            Hub::new(address, None)
                .fetch(&repository, cache.path(), &mut |_| ())
                .expect_err("nothing there")
                .to_string()
        };
        let text = error("http://127.0.0.1:1");
        assert!(text.contains("cannot be reached") && text.contains("name its folder"), "{text}");
        assert!(error(&serve(|_, _| response("404 Not Found", 0, b""))).contains("no such repository"));
        let empty = br#"{"siblings": []}"#;
        assert!(error(&serve(|_, _| response("200 OK", empty.len(), empty))).contains("no pipeline"));
        for name in ["", "a/b/c", "../b", "a/..", "a b", "a/b@", "a/b@c/d"] {
            assert!(name.parse::<Repository>().is_err(), "{name}");
        }
    }
}
