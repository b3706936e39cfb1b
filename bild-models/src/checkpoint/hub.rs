use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{ApiBuilder, ApiError},
};

use super::{Checkpoint, WEIGHTS};
use crate::error::{LoadError, Result};

/// The Hugging Face hub: brings checkpoints by name, into the cache that Python's `huggingface_hub` uses too.
///
/// What is in the cache is not fetched again. If the hub cannot be asked, a checkpoint that is there is taken from there.
///
/// ```no_run
/// use bild::{Checkpoint, models::Hub};
///
/// let little = Checkpoint::from_hub("google/flan-t5-small")?;
/// let big = Hub::from_env().with_revision("refs/pr/7").with_progress(true).checkpoint("google/flan-t5-large")?;
/// # Ok::<(), bild::LoadError>(())
/// ```
#[derive(Clone)]
pub struct Hub {
    /// `None` where there is no home directory and nothing names another.
    cache: Option<PathBuf>,
    endpoint: String,
    token: Option<String>,
    revision: String,
    offline: bool,
    progress: bool,
}

/// All but the token, which is nobody's business.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, token, revision, offline, progress } = self;
        let token = token.as_ref().map(|_| "…");
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("token", &token)
            .field("revision", revision)
            .field("offline", offline)
            .field("progress", progress)
            .finish()
    }
}

impl Checkpoint {
    /// Opens a checkpoint of the Hugging Face hub, as in `google/flan-t5-small`, as [`Hub::from_env`] says, with a
    /// progress bar.
    ///
    /// # Errors
    ///
    /// As [`Hub::checkpoint`].
    pub fn from_hub(repository: &str) -> Result<Self> {
        Hub::from_env().checkpoint(repository)
    }
}

impl Hub {
    /// The hub as the environment describes it: `HF_ENDPOINT` (`https://huggingface.co`), `HF_HUB_CACHE` or the folder
    /// `hub` in `HF_HOME` (`~/.cache/huggingface`), `HF_TOKEN` or else the file `token` in `HF_HOME` (which a login
    /// leaves there), and `HF_HUB_OFFLINE`, with which nothing but the cache is looked at.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let home = set("HF_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cache/huggingface")));
        let login = || {
            let token = fs::read_to_string(home.as_ref()?.join("token")).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Self {
            token: set("HF_TOKEN").or_else(login),
            cache: set("HF_HUB_CACHE").map(PathBuf::from).or(home.map(|home| home.join("hub"))),
            endpoint: set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            revision: "main".into(),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
            progress: false,
        }
    }

    /// Sets the branch, tag or commit.
    pub fn with_revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = revision.into();
        self
    }

    /// Sets the folder of the cache.
    pub fn with_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.cache = Some(folder.into());
        self
    }

    /// Sets the address of the hub, without a slash at its end.
    pub fn with_endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoint = endpoint.into();
        self
    }

    /// Sets the token, for repositories that are not open to all.
    pub fn with_token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Sets whether nothing but the cache is looked at.
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Sets whether a progress bar is drawn on standard error, which is not so by default.
    pub fn with_progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// Opens a checkpoint by its name, `owner/name`, and fetches what is missing of it first. All files are of one commit.
    ///
    /// # Errors
    ///
    /// [`LoadError::Hub`] if the name or the revision makes no sense, or the files cannot be fetched and are not in the
    /// cache; otherwise as [`Checkpoint::open`].
    pub fn checkpoint(&self, repository: &str) -> Result<Checkpoint> {
        let plain = |name: &str, slashes: usize| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let parts: Vec<_> = name.split('/').collect();
            let sound = |part: &&str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
            parts.len() <= slashes + 1 && parts.iter().all(sound)
        };
        if !plain(repository, 1) {
            return Err(self.error(repository, "that is not a name on the hub, as in owner/name".into()));
        }
        if !plain(&self.revision, 8) {
            return Err(self.error(repository, "that is not the name of a revision".into()));
        }
        let Some(cache) = &self.cache else {
            return Err(self.error(repository, "there is no home directory for its cache: set HF_HOME".into()));
        };
        let repo = Repo::with_revision(repository.into(), RepoType::Model, self.revision.clone());
        if self.offline {
            let snapshot = snapshot(cache, &repo);
            let missing = || format!("it is not in the cache, {}, and the hub is not asked (offline)", cache.display());
            return Checkpoint::open(snapshot.ok_or_else(|| self.error(repository, missing()))?);
        }
        match self.fetch(cache, &repo) {
            Ok(folder) => Checkpoint::open(folder),
            Err(error) => match snapshot(cache, &repo).map(Checkpoint::open) {
                Some(Ok(checkpoint)) => {
                    tracing::warn!(repository, %error, "the hub could not be asked: the checkpoint is from the cache");
                    Ok(checkpoint)
                }
                _ => {
                    // Only a hub that answers can want another name or a token.
                    let answered = error.to_string().contains("http status");
                    let hint = if answered {
                        "is the name right? does it need HF_TOKEN?"
                    } else {
                        "is it reachable from here?"
                    };
                    Err(self.error(repository, format!("{error} ({hint})")))
                }
            },
        }
    }

    /// Fetches what the cache lacks, and returns the folder of the commit that the revision stands for now.
    fn fetch(&self, cache: &Path, repo: &Repo) -> Result<PathBuf, ApiError> {
        let api = ApiBuilder::from_cache(Cache::new(cache.into()))
            .with_endpoint(self.endpoint.clone())
            .with_progress(self.progress)
            .with_token(self.token.clone())
            .with_retries(3)
            .build()?;
        let info = api.repo(repo.clone()).info()?;
        let there: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let cached = Cache::new(cache.into()).repo(repo.clone());
        let folder = cached.pointer_path(&info.sha);
        let id = repo.url();
        let commit = api.repo(Repo::with_revision(id, RepoType::Model, info.sha.clone()));
        for name in wanted(&there) {
            if !folder.join(name).exists() {
                commit.download(name)?;
            }
        }
        cached.create_ref(&info.sha)?;
        Ok(folder)
    }

    fn error(&self, repository: &str, reason: String) -> LoadError {
        LoadError::Hub {
            repository: repository.into(),
            revision: self.revision.clone(),
            endpoint: self.endpoint.clone(),
            reason,
        }
    }
}

/// The folder of the commit that the cache has for a revision.
fn snapshot(cache: &Path, repo: &Repo) -> Option<PathBuf> {
    let reference = cache.join(repo.folder_name()).join("refs").join(repo.revision());
    let commit = fs::read_to_string(reference).unwrap_or_else(|_| repo.revision().into());
    Some(Cache::new(cache.into()).repo(repo.clone()).pointer_path(commit.trim())).filter(|folder| folder.is_dir())
}

/// Of the files of a repository, those that a checkpoint is made of: one form of weights, the first that is opened.
fn wanted<'a>(there: &[&'a str]) -> Vec<&'a str> {
    let has_json = there.contains(&"tokenizer.json");
    let beside = |name: &&str| Checkpoint::FILES.contains(name) && !(has_json && *name == "spiece.model");
    let mut wanted: Vec<_> = there.iter().copied().filter(beside).collect();
    for name in WEIGHTS {
        let (stem, ending) = name.split_once('.').unwrap_or((name, ""));
        let index = format!("{name}.index.json");
        let is_weights = |file: &&str| {
            if there.contains(&name) {
                return *file == name;
            }
            // model-00001-of-00002.safetensors
            let part = file.strip_prefix(stem).and_then(|rest| rest.strip_suffix(ending));
            *file == index
                || part.is_some_and(|part| part.starts_with('-') && part.ends_with('.') && !part.contains('/'))
        };
        if there.contains(&name) || there.contains(&index.as_str()) {
            wanted.extend(there.iter().copied().filter(is_weights));
            break;
        }
    }
    wanted
}
